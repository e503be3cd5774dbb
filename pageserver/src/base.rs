//! What a head says is folded.

use segments::image::Image;
use segments::map::PageMap;
use segments::tip::{ChainHash, Tip};
use tenant::head::{Head, MapField};
use walstore::envelope::Corrupt;

/// The pages that stand in the head itself.
pub fn image_of(head: &Head) -> Result<Option<Image>, Corrupt> {
    head.inline_image.as_ref().map(Image::decode).transpose()
}

/// The state after the last folded commit, and where its pages are.
pub fn base_of(head: &Head) -> Result<(Tip, PageMap), Corrupt> {
    let folded = &head.folded;
    let Some(lsn) = folded.lsn else { return Ok((Tip::before_first(head.database), PageMap::empty())) };
    let tip = Tip {
        lsn: Some(lsn),
        time_micros: folded.time_micros,
        page_count: folded.page_count,
        pages_total: folded.pages_total,
        chain: ChainHash::from_bytes(folded.chain),
    };
    let MapField::Inline(root) = &head.map else {
        return Err(Corrupt::new("a page map in a form that this version does not write"));
    };
    let map = PageMap::decode(root)?;
    if map.lsn() != tip.lsn || map.page_count() != tip.page_count {
        return Err(Corrupt::new(format!("a page map as of {:?} in a head folded up to {lsn}", map.lsn())));
    }
    Ok((tip, map))
}

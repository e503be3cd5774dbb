use std::collections::BTreeMap;

use proptest::prelude::*;
use walstore::id::{DatabaseId, Lsn};

use super::*;
use crate::btree::tests::{interior, leaf, schema};
use crate::limits;
use crate::pack::PackWriter;
use crate::page::{PAGE_BYTES, Page, SegmentNo};

const OWNER: DatabaseId = DatabaseId::from_bytes([3; 16]);

/// Two segments, 40 pages, each of its number's bytes.
fn pack() -> crate::pack::Pack {
    let id = PackId { owner: OWNER, epoch: 1, seq: 2, nonce: 9 };
    let mut writer = PackWriter::new(id, Lsn::FIRST, 40);
    for segment in [0, 1].map(|segment| SegmentNo::new(segment).unwrap()) {
        let pages = (0..segment.pages_within(40)).map(|at| segment.page(at).unwrap().get() as u8);
        writer.add_segment(segment, pages.map(|byte| Page::copy_of(&[byte; PAGE_BYTES])).collect());
    }
    writer.finish().unwrap()
}

fn stored() -> Bytes {
    Image::Whole(WholeImage::of_pack(&pack(), limits::IMAGE_BYTES_MAX).unwrap()).encode()
}

#[test]
fn the_frames_of_an_image_are_those_of_its_pack() {
    let (pack, image) = (pack(), Image::decode(&stored()).unwrap());
    assert!(image.is_pack(&pack.id));
    for entry in pack.segments.entries() {
        let at = FrameAt { pack: pack.id, frame: entry.frame };
        let frame = image.frame(&at).unwrap().unwrap();
        assert_eq!(frame.page(7).unwrap().as_bytes()[0], entry.segment.page(7).unwrap().get() as u8);
        let elsewhere = PackId { nonce: 1, ..pack.id };
        assert!(image.frame(&FrameAt { pack: elsewhere, ..at }).is_none());
        let mut beyond = at;
        beyond.frame.offset = u32::MAX;
        assert!(image.frame(&beyond).unwrap().is_err());
    }
    assert!(WholeImage::of_pack(&pack, pack.bytes.len() - 1).is_none());
}

#[test]
fn golden_image() {
    let hash = blake3::hash(&stored()).to_hex()[..16].to_owned();
    assert_eq!(format!("{hash} whole image of {} bytes\n", stored().len()), include_str!("../../golden/image.b3"));
}

/// A database of `page_count` pages as choosing sees it, with what it knows.
fn chosen(page_count: u32, known: &[(u32, Page)]) -> (Vec<u32>, Vec<u32>) {
    let known: BTreeMap<PageNo, Page> = known.iter().map(|(no, page)| (PageNo::new(*no).unwrap(), page.clone())).collect();
    let Choice { pages, wanted } = choose(page_count, &|page| known.get(&page).cloned());
    (pages.iter().map(|(no, _)| no.get()).collect(), wanted.iter().map(|no| no.get()).collect())
}

#[test]
fn the_schema_comes_first_then_the_upper_levels_then_small_tables() {
    let tree = [
        (1, schema(1, &[2, 3, 4])),
        (2, leaf(2)),
        (3, interior(3, &[10, 11])),
        (4, interior(4, &[20, 21, 22])),
        (10, interior(10, &[100, 101])),
        (11, interior(11, &[102, 103])),
        (100, leaf(100)),
        (21, leaf(21)),
    ];
    assert_eq!(chosen(1000, &tree), (vec![1, 3, 4, 10, 11, 2], vec![]));
    assert_eq!(chosen(1000, &tree[..1]), (vec![1], vec![2, 3, 4]), "what is not known is asked for");
    assert_eq!(chosen(1000, &tree[..4]), (vec![1, 3, 4, 2], vec![10, 20]), "one page tells what its level is");
    assert_eq!(chosen(1000, &tree[..5]), (vec![1, 3, 4, 2], vec![11, 20]), "a level is taken as a whole");
    assert_eq!(chosen(3, &tree), (vec![1, 3, 2], vec![]), "nothing beyond the end");
    assert_eq!(chosen(1000, &[]), (vec![], vec![1]));
}

#[test]
fn a_schema_of_many_pages_is_found_through_its_interior_pages() {
    let tree = [(1, interior(1, &[2, 3])), (2, schema(2, &[4])), (3, schema(3, &[5])), (4, leaf(4)), (5, leaf(5))];
    assert_eq!(chosen(5, &tree), (vec![1, 2, 3, 4, 5], vec![]));
}

#[test]
fn cycles_and_huge_counts_come_to_an_end() {
    let ring = [(1, schema(1, &[2, 2, 3, 1])), (2, interior(2, &[3])), (3, interior(3, &[2]))];
    assert_eq!(chosen(3, &ring).0, [1, 2, 3]);
    let ring = [(1, interior(1, &[1, 2])), (2, interior(2, &[1, 2]))];
    assert_eq!(chosen(2, &ring), (vec![1, 2], vec![]));
    let children: Vec<u32> = (2..500).collect();
    assert_eq!(chosen(1000, &[(1, schema(1, &[2])), (2, interior(2, &children))]), (vec![1, 2], vec![]));
    let (pages, wanted) = chosen(1000, &[(1, schema(1, &children[..100]))]);
    assert!(pages == [1] && wanted.len() <= limits::BOOT_PAGES_MAX, "{wanted:?}");
}

fn boot() -> BootImage {
    let id = PackId { owner: OWNER, epoch: 1, seq: 2, nonce: 9 };
    let pages = [(1, schema(1, &[2])), (9, leaf(9)), (2, interior(2, &[9, 3]))];
    let pages = pages.map(|(no, page)| (PageNo::new(no).unwrap(), page));
    BootImage::new(id, Lsn::new(5).unwrap(), &pages).unwrap()
}

/// A map as of the LSN of `boot`, and a commit that writes these pages.
fn commit_on_boot(pages: &[(u32, Page)]) -> (PageMap, crate::fold::FoldInput) {
    let mut writer = PackWriter::new(boot().id(), Lsn::new(5).unwrap(), 9);
    writer.add_segment(SegmentNo::new(0).unwrap(), vec![Page::zeroed(); 9]);
    let pack = writer.finish().unwrap();
    let map = PageMap::empty().with_fold(pack.lsn, 9, Some(&pack), &Default::default());
    let mut input = crate::fold::FoldInput::new(OWNER, &map);
    let pages = pages.iter().map(|(no, page)| (PageNo::new(*no).unwrap(), page.clone()));
    input.add(Lsn::new(6).unwrap(), 9, pages);
    (map, input)
}

#[test]
fn what_leads_elsewhere_is_chosen_again_and_other_changes_are_taken_along() {
    let carried = |pages: &[(u32, Page)]| {
        let (map, input) = commit_on_boot(pages);
        boot().carry(&map, &input).unwrap()
    };
    let Carried::AsItIs(same) = carried(&[(3, leaf(3))]) else { panic!() };
    let (map, input) = commit_on_boot(&[]);
    assert!(same.source(&map, PageNo::FIRST).is_none() && boot().source(&map, PageNo::FIRST).is_some());
    assert_eq!(input.lsn, Lsn::new(6));
    let mut counted = *schema(1, &[2]).as_bytes();
    counted[24..28].fill(7);
    assert!(matches!(carried(&[(1, Page::copy_of(&counted))]), Carried::Renewed(pages) if pages.len() == 3));
    counted[40] = 1;
    assert!(matches!(carried(&[(1, Page::copy_of(&counted))]), Carried::ChooseAgain(_)), "another schema");
    assert!(matches!(carried(&[(2, interior(2, &[9, 4]))]), Carried::ChooseAgain(_)), "other children");
    assert!(matches!(carried(&[(9, interior(9, &[4]))]), Carried::ChooseAgain(_)), "a root that was a leaf");
    assert!(matches!(carried(&[(9, schema(9, &[4]))]), Carried::Renewed(_)));
    let older = PageMap::empty();
    assert!(matches!(boot().carry(&older, &input).unwrap(), Carried::ChooseAgain(known) if known.is_empty()));
}

#[test]
fn a_boot_image_never_exceeds_its_size() {
    let noise = |seed: u32| {
        let mut bytes = [0; PAGE_BYTES];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        (PageNo::new(seed).unwrap(), Page::copy_of(&bytes))
    };
    let pages: Vec<_> = (1..60).map(noise).collect();
    let image = BootImage::new(boot().id(), Lsn::FIRST, &pages).unwrap();
    assert_eq!(image.pages().len(), 3, "they do not compress");
    assert!(Image::Boot(image).encode().len() < limits::BOOT_BYTES_MAX + 100);
    let pages: Vec<_> = (1..60).map(|no| (PageNo::new(no).unwrap(), Page::zeroed())).collect();
    assert_eq!(BootImage::new(boot().id(), Lsn::FIRST, &pages).unwrap().pages().len(), limits::BOOT_PAGES_MAX);
    assert_eq!(BootImage::new(boot().id(), Lsn::FIRST, &[]), None);
}

#[test]
fn golden_boot_image() {
    let stored = Image::Boot(boot()).encode();
    assert_eq!(Image::decode(&stored), Ok(Image::Boot(boot())));
    let hash = blake3::hash(&stored).to_hex()[..16].to_owned();
    assert_eq!(format!("{hash} boot image of {} bytes\n", stored.len()), include_str!("../../golden/boot_image.b3"));
}

proptest! {
    /// The head's checksum covers it; here only that nothing panics, and no page is believed that is damaged.
    #[test]
    fn a_damaged_boot_image_gives_no_wrong_page(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
        let mut image = Image::Boot(boot()).encode().to_vec();
        let at = at.index(image.len());
        if cut { image.truncate(at) } else { image[at] ^= 1 << bit }
        let (map, input) = commit_on_boot(&[]);
        if let Ok(Image::Boot(image)) = Image::decode(&image.into()) {
            let _ = image.carry(&map, &input);
            if let Some(Ok(frame)) = image.source(&map, PageNo::FIRST).and_then(|source| image.frame(&source.at)) {
                prop_assert_eq!(frame, boot().frame(&boot().source(&map, PageNo::FIRST).unwrap().at).unwrap().unwrap());
            }
        }
    }

    #[test]
    fn arbitrary_boot_images_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = Image::decode(&[&[2], &bytes[..]].concat().into());
    }

    #[test]
    fn hostile_trees_never_panic(
        links in proptest::collection::vec((1u32..12, proptest::collection::vec(0u32..14, 1..6), 0u8..3), 1..12),
    ) {
        let page = |no: u32, links: &[u32], kind| match kind {
            0 => schema(no, links),
            1 => interior(no, links),
            _ => Page::copy_of(&[no as u8; PAGE_BYTES]),
        };
        let known: Vec<(u32, Page)> = links.iter().map(|(no, links, kind)| (*no, page(*no, links, *kind))).collect();
        let (pages, _) = chosen(11, &known);
        let distinct: std::collections::BTreeSet<&u32> = pages.iter().collect();
        prop_assert!(distinct.len() == pages.len() && pages.iter().all(|page| *page <= 11));
    }

    #[test]
    fn a_damaged_image_is_refused(at: prop::sample::Index, bit in 0u8..8, cut: bool) {
        let mut image = stored().to_vec();
        let at = at.index(image.len());
        if cut { image.truncate(at) } else { image[at] ^= 1 << bit }
        prop_assert!(Image::decode(&image.into()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Image::decode(&bytes.into());
    }
}

//! The difference between two versions of a page, as runs of bytes that changed.

use std::ops::Range;

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, Writer};

use crate::limits;
use crate::page::{PAGE_BYTES, Page};
use crate::varint;

/// Runs closer than this become one: the header of a run costs two bytes or more.
const GAP_BYTES_MIN: usize = 4;

/// Bytes of a page that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    start: usize,
    bytes: Bytes,
}

/// Encodes how `page` differs from `base`; `None` if that is not clearly smaller than the page.
pub fn encode(base: &Page, page: &Page) -> Option<Vec<u8>> {
    let runs = changed_runs(base.as_bytes(), page.as_bytes());
    let mut out = Writer::new();
    varint::put_len(&mut out, runs.len());
    let mut at = 0;
    for run in runs {
        varint::put_len(&mut out, run.start - at);
        varint::put_len(&mut out, run.len());
        out.raw(&page.as_bytes()[run.clone()]);
        at = run.end;
        if out.len() > limits::PATCH_BYTES_MAX {
            return None;
        }
    }
    Some(out.finish())
}

fn changed_runs(base: &[u8; PAGE_BYTES], page: &[u8; PAGE_BYTES]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for word in (0..PAGE_BYTES).step_by(8) {
        if base[word..word + 8] == page[word..word + 8] {
            continue;
        }
        for at in (word..word + 8).filter(|at| base[*at] != page[*at]) {
            match runs.last_mut() {
                Some(run) if at - run.end < GAP_BYTES_MIN => run.end = at + 1,
                _ => runs.push(at..at + 1),
            }
        }
    }
    runs
}

/// Reads runs out of `body`, of which `reader` is the rest. Every run lies inside of a page.
pub fn decode(body: &Bytes, reader: &mut Reader<'_>) -> Result<Vec<Run>, Corrupt> {
    let count = varint::take_count(reader, 3)?;
    let mut runs = Vec::with_capacity(count.min(PAGE_BYTES));
    let mut at = 0u64;
    for _ in 0..count {
        let start = at.saturating_add(varint::take(reader)?);
        let length = varint::take(reader)?;
        at = start.saturating_add(length);
        if length == 0 || at > PAGE_BYTES as u64 {
            return Err(Corrupt::new(format!("a patch of {length} bytes at {start}")));
        }
        let bytes = body.slice_ref(reader.raw(length as usize)?);
        runs.push(Run { start: start as usize, bytes });
    }
    Ok(runs)
}

/// The page that `runs` make out of `base`.
pub fn apply(base: &Page, runs: &[Run]) -> Page {
    let mut page = *base.as_bytes();
    for run in runs {
        page[run.start..run.start + run.bytes.len()].copy_from_slice(&run.bytes);
    }
    Page::copy_of(&page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_changed_row_is_a_few_bytes_and_a_rewritten_page_is_no_patch() {
        let base = Page::copy_of(&[7; PAGE_BYTES]);
        let mut page = [7; PAGE_BYTES];
        page[100] = 1;
        page[103] = 2;
        page[4095] = 3;
        let patch = encode(&base, &Page::copy_of(&page)).unwrap();
        assert_eq!(patch, [2, 100, 4, 1, 7, 7, 2, 0x97, 0x1f, 1, 3]);
        assert_eq!(encode(&base, &base).unwrap(), [0]);
        assert_eq!(encode(&base, &Page::zeroed()), None);
    }

    proptest! {
        #[test]
        fn patches_restore_the_page(edits in proptest::collection::vec((0usize..PAGE_BYTES, any::<u8>()), 0..200)) {
            let base = Page::copy_of(&std::array::from_fn(|at| at as u8));
            let mut page = *base.as_bytes();
            for (at, byte) in edits {
                page[at] = byte;
            }
            let page = Page::copy_of(&page);
            let patch = Bytes::from(encode(&base, &page).unwrap());
            let runs = decode(&patch, &mut Reader::new(&patch)).unwrap();
            prop_assert_eq!(apply(&base, &runs), page);
        }
    }
}

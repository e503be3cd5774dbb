use proptest::prelude::*;

use super::*;

fn no(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

/// A B-tree page with these cells, in the order given.
pub(crate) fn page(page_no: u32, kind: u8, cells: &[Vec<u8>], right: Option<u32>) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    let start = if page_no == 1 { 100 } else { 0 };
    bytes[start] = kind;
    bytes[start + 3..start + 5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
    let mut pointers = start + 8;
    if let Some(right) = right {
        bytes[pointers..pointers + 4].copy_from_slice(&right.to_be_bytes());
        pointers += 4;
    }
    let mut end = PAGE_BYTES;
    for cell in cells {
        end -= cell.len();
        bytes[end..end + cell.len()].copy_from_slice(cell);
        bytes[pointers..pointers + 2].copy_from_slice(&(end as u16).to_be_bytes());
        pointers += 2;
    }
    assert!(pointers <= end);
    Page::copy_of(&bytes)
}

/// An interior page of a table with these children.
pub(crate) fn interior(page_no: u32, children: &[u32]) -> Page {
    let (right, left) = children.split_last().unwrap();
    let cells: Vec<Vec<u8>> = left.iter().map(|child| [&child.to_be_bytes()[..], &[7]].concat()).collect();
    page(page_no, 5, &cells, Some(*right))
}

pub(crate) fn leaf(page_no: u32) -> Page {
    page(page_no, 13, &[], None)
}

/// A leaf of `sqlite_schema` that lists tables with these roots.
pub(crate) fn schema(page_no: u32, roots: &[u32]) -> Page {
    let cells: Vec<Vec<u8>> = roots.iter().map(|root| schema_row(*root, "CREATE TABLE t(x)")).collect();
    page(page_no, 13, &cells, None)
}

fn schema_row(root: u32, sql: &str) -> Vec<u8> {
    let text = |text: &str| (text.len() * 2 + 13) as u8;
    let header = [6, text("table"), text("t"), text("t"), 4, text(sql)];
    let payload = [&header[..], b"tablett", &root.to_be_bytes(), sql.as_bytes()].concat();
    [&[payload.len() as u8, 1][..], &payload].concat()
}

#[test]
fn interior_pages_name_their_children_in_order() {
    let page = interior(9, &[5, 3, 700_000, 4]);
    let parsed = BtreePage::parse(no(9), &page).unwrap();
    assert!(parsed.is_interior());
    assert_eq!(parsed.children(), [5, 3, 700_000, 4].map(no));
    assert!(parsed.schema_roots().is_empty());
    let on_first = interior(1, &[2, 3]);
    assert_eq!(BtreePage::parse(no(1), &on_first).unwrap().children(), [2, 3].map(no));
    assert!(BtreePage::parse(no(2), &on_first).is_none(), "elsewhere there is no header before it");
}

#[test]
fn leaves_of_the_schema_name_the_roots() {
    let page = schema(1, &[2, 300, 70_000]);
    assert_eq!(BtreePage::parse(no(1), &page).unwrap().schema_roots(), [2, 300, 70_000].map(no));
    // A view has root page 0, in no bytes at all, and a small number takes one byte.
    let view = [&[14, 2, 6, 21, 15, 15, 8, 15][..], b"viewvvs"].concat();
    let small = [&[15, 3, 6, 23, 15, 15, 1, 15][..], b"tablett", &[77], b"s"].concat();
    let page = super::tests::page(5, 13, &[view, small], None);
    assert_eq!(BtreePage::parse(no(5), &page).unwrap().schema_roots(), [no(77)]);
}

#[test]
fn what_cannot_be_is_left_out() {
    assert!(BtreePage::parse(no(3), &Page::zeroed()).is_none());
    let mut bytes = *interior(3, &[4, 5]).as_bytes();
    bytes[3..5].copy_from_slice(&2043u16.to_be_bytes());
    assert!(BtreePage::parse(no(3), &Page::copy_of(&bytes)).is_none(), "more cells than fit");
    bytes[3..5].copy_from_slice(&2u16.to_be_bytes());
    bytes[14..16].copy_from_slice(&4095u16.to_be_bytes());
    let page = Page::copy_of(&bytes);
    assert_eq!(BtreePage::parse(no(3), &page).unwrap().children(), [4, 5].map(no), "a cell beyond the end");
    bytes[12..14].copy_from_slice(&8u16.to_be_bytes());
    bytes[14..16].copy_from_slice(&15u16.to_be_bytes());
    let page = Page::copy_of(&bytes);
    assert_eq!(BtreePage::parse(no(3), &page).unwrap().children(), [no(5)], "cells among the pointers");
    assert_eq!(BtreePage::parse(no(3), &interior(3, &[1, 0, 3])).unwrap().children(), [no(1), no(3)], "there is no page 0");
    assert!(BtreePage::interior(no(3), &leaf(3)).is_none(), "nothing is below a leaf");
}

#[test]
fn the_schema_cookie_stands_where_sqlite_has_it() {
    let mut bytes = *schema(1, &[2]).as_bytes();
    bytes[40..44].copy_from_slice(&[0, 0, 1, 2]);
    assert_eq!(schema_cookie(&Page::copy_of(&bytes)), 258);
}

proptest! {
    #[test]
    fn hostile_pages_never_panic(
        page_no in 1u32..3,
        start in prop::sample::select(vec![2u8, 5, 10, 13, 0]),
        cells in 0u16..2100,
        bytes in proptest::collection::vec(any::<u8>(), PAGE_BYTES),
    ) {
        let mut bytes: [u8; PAGE_BYTES] = bytes.try_into().unwrap();
        let at = if page_no == 1 { 100 } else { 0 };
        bytes[at] = start;
        bytes[at + 3..at + 5].copy_from_slice(&cells.to_be_bytes());
        let page = Page::copy_of(&bytes);
        if let Some(parsed) = BtreePage::parse(no(page_no), &page) {
            prop_assert!(parsed.children().len() <= 2043 && parsed.schema_roots().len() <= 2043);
        }
    }

    #[test]
    fn hostile_rows_never_panic(row in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = root_page(&row);
    }
}

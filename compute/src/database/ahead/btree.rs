//! The children of an inner page of one of SQLite's trees.
//!
//! What is read here may be anything: a page of a table's tree, a piece of a blob that looks like one, or what a
//! stranger has made up. So everything is checked, and a wrong guess costs a read and nothing else.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 1 | 2: inner page of an index, 5: of a table |
//! | 3 | 2 | number of cells |
//! | 8 | 4 | the last child |
//! | 12 | 2 each | where each cell is, counted from the start of the page; its first 4 bytes are a child |
//!
//! Numbers are big-endian. On page 1 all this begins at offset 100, after the database's header.

use segments::page::{PAGE_BYTES, Page, PageNo};

const INNER_OF_INDEX: u8 = 2;
const INNER_OF_TABLE: u8 = 5;
const FILE_HEADER_BYTES: usize = 100;
const HEADER_BYTES: usize = 12;

fn header_at(page_no: PageNo) -> usize {
    if page_no == PageNo::FIRST { FILE_HEADER_BYTES } else { 0 }
}

/// Whether it may be an inner page.
pub fn is_inner(page_no: PageNo, page: &Page) -> bool {
    matches!(page.as_bytes()[header_at(page_no)], INNER_OF_INDEX | INNER_OF_TABLE)
}

/// Its children, in the order of their keys; empty if it is no inner page after all.
pub fn children(page_no: PageNo, page: &Page) -> Vec<PageNo> {
    if !is_inner(page_no, page) {
        return Vec::new();
    }
    let (bytes, header) = (page.as_bytes(), header_at(page_no));
    let count = usize::from(u16_at(bytes, header + 3).unwrap_or(0));
    let cells = (0..count).map(|cell| {
        let at = usize::from(u16_at(bytes, header + HEADER_BYTES + 2 * cell)?);
        (at >= header + HEADER_BYTES).then(|| child_at(bytes, at)).flatten()
    });
    let children: Option<Vec<PageNo>> = cells.chain([child_at(bytes, header + 8)]).collect();
    children.unwrap_or_default()
}

fn u16_at(bytes: &[u8; PAGE_BYTES], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn child_at(bytes: &[u8; PAGE_BYTES], at: usize) -> Option<PageNo> {
    PageNo::new(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::*;

    fn no(page: u32) -> PageNo {
        PageNo::new(page).unwrap()
    }

    /// An inner page with these children.
    fn inner(children: &[u32], header: usize) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        let (last, cells) = children.split_last().unwrap();
        bytes[header] = INNER_OF_TABLE;
        bytes[header + 3..header + 5].copy_from_slice(&(cells.len() as u16).to_be_bytes());
        bytes[header + 8..header + 12].copy_from_slice(&last.to_be_bytes());
        for (cell, child) in cells.iter().enumerate() {
            let at = PAGE_BYTES - 8 * (cell + 1);
            bytes[header + 12 + 2 * cell..][..2].copy_from_slice(&(at as u16).to_be_bytes());
            bytes[at..at + 4].copy_from_slice(&child.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn children_come_in_order_also_on_page_1() {
        let expected: Vec<PageNo> = [9, 7, 300].map(no).into();
        assert_eq!(children(no(2), &Page::copy_of(&inner(&[9, 7, 300], 0))), expected);
        assert_eq!(children(no(1), &Page::copy_of(&inner(&[9, 7, 300], 100))), expected);
        assert_eq!(children(no(1), &Page::copy_of(&inner(&[9, 7, 300], 0))), []);
    }

    #[test]
    fn real_trees_are_read_right() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree.db");
        // SQLite's own VFS, whichever is the default by now.
        let connection = rusqlite::Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "unix").unwrap();
        connection.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT);
             WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < 5000)
             INSERT INTO t SELECT id, hex(randomblob(100)) FROM ids",
        )
        .unwrap();
        let root: u32 = connection.query_row("SELECT rootpage FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        let image = std::fs::read(&path).unwrap();
        let page = |number: u32| {
            let start = (number as usize - 1) * PAGE_BYTES;
            Page::copy_of(image[start..start + PAGE_BYTES].try_into().unwrap())
        };
        let leaves = children(no(root), &page(root));
        assert!(leaves.len() > 100);
        // Every leaf of a table begins with its type.
        assert!(leaves.iter().all(|leaf| page(leaf.get()).as_bytes()[0] == 13));
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let mut state = 1_u64;
        for _ in 0..2_000 {
            let mut bytes = [0; PAGE_BYTES];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
            for (at, kind) in [(0, 2), (0, 5), (100, 5)] {
                bytes[at] = kind;
                let found = children(no(if at == 0 { 3 } else { 1 }), &Page::copy_of(&bytes));
                assert!(found.len() <= PAGE_BYTES * 16);
            }
        }
        let mut bytes = inner(&[1, 2, 3], 0);
        bytes[12..14].copy_from_slice(&(PAGE_BYTES as u16 - 3).to_be_bytes());
        assert_eq!(children(no(2), &Page::copy_of(&bytes)), [], "a cell that does not fit");
        assert_eq!(children(no(2), &Page::copy_of(&inner(&[1, 0, 3], 0))), [], "there is no page 0");
    }
}

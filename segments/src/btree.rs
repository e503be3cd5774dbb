//! What a page of SQLite's file format says about other pages: enough to find the pages that every query passes
//! through, and those that a scan comes to next. Nothing here knows SQL.
//!
//! The bytes are a client's, so nothing is believed: what does not fit is left out, counts are bounded by what a
//! page can hold, and a wrong page number costs room and nothing else, because whoever asks for that page gets that
//! page. Integers are big-endian in this format.

use crate::page::{PAGE_BYTES, Page, PageNo};

/// The database's header, on page 1 before the B-tree page that begins there.
const DATABASE_HEADER_BYTES: usize = 100;
const SCHEMA_COOKIE_AT: usize = 40;
const LEAF_HEADER_BYTES: usize = 8;
const INTERIOR_HEADER_BYTES: usize = 12;
/// The column of `sqlite_schema` that tells where a table or an index begins.
const ROOT_PAGE_COLUMN: usize = 3;

/// Changes with every change of the schema.
pub fn schema_cookie(first_page: &Page) -> u32 {
    u32_at(first_page.as_bytes(), SCHEMA_COOKIE_AT).expect("BUG: a page is longer than the header")
}

/// A page of a B-tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BtreePage<'a> {
    bytes: &'a [u8; PAGE_BYTES],
    kind: Kind,
    start: usize,
    cell_count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Interior,
    TableLeaf,
    IndexLeaf,
}

impl<'a> BtreePage<'a> {
    /// `None` if it cannot be one.
    pub fn parse(page_no: PageNo, page: &'a Page) -> Option<Self> {
        let bytes = page.as_bytes();
        let start = if page_no == PageNo::FIRST { DATABASE_HEADER_BYTES } else { 0 };
        let kind = match bytes[start] {
            2 | 5 => Kind::Interior,
            10 => Kind::IndexLeaf,
            13 => Kind::TableLeaf,
            _ => return None,
        };
        let parsed = Self { bytes, kind, start, cell_count: usize::from(u16_at(bytes, start + 3)?) };
        (parsed.pointers_at() + 2 * parsed.cell_count <= PAGE_BYTES).then_some(parsed)
    }

    /// `None` if it cannot be one with pages below it.
    pub fn interior(page_no: PageNo, page: &'a Page) -> Option<Self> {
        Self::parse(page_no, page).filter(Self::is_interior)
    }

    pub fn is_interior(&self) -> bool {
        self.kind == Kind::Interior
    }

    /// The pages below an interior page, in order of their keys.
    pub fn children(&self) -> Vec<PageNo> {
        if !self.is_interior() {
            return Vec::new();
        }
        let left = self.cells().filter_map(|cell| u32_at(self.bytes, cell));
        let right = u32_at(self.bytes, self.start + LEAF_HEADER_BYTES);
        left.chain(right).filter_map(PageNo::new).collect()
    }

    /// Where the tables and indexes begin that a leaf of `sqlite_schema` lists.
    pub fn schema_roots(&self) -> Vec<PageNo> {
        if self.kind != Kind::TableLeaf {
            return Vec::new();
        }
        self.cells().filter_map(|cell| root_page(self.bytes.get(cell..)?)).collect()
    }

    fn pointers_at(&self) -> usize {
        self.start + if self.is_interior() { INTERIOR_HEADER_BYTES } else { LEAF_HEADER_BYTES }
    }

    /// Where each cell is. None is among the pointers, nor before them.
    fn cells(&self) -> impl Iterator<Item = usize> {
        let (bytes, pointers) = (self.bytes, self.pointers_at());
        let end = pointers + 2 * self.cell_count;
        let cells = (0..self.cell_count).filter_map(move |at| u16_at(bytes, pointers + 2 * at).map(usize::from));
        cells.filter(move |cell| *cell >= end)
    }
}

/// The root page in a row of `sqlite_schema`; none for views and triggers. `cell` begins with that row. A row that
/// goes on in other pages has this column in the first, unless its names are very long: then it is not found.
fn root_page(cell: &[u8]) -> Option<PageNo> {
    let mut reader = Varints(cell);
    let (_payload_bytes, _rowid) = (reader.next()?, reader.next()?);
    let record = reader.0;
    let mut header = Varints(record);
    let header_bytes = usize::try_from(header.next()?).ok()?;
    let mut skipped = header_bytes;
    for _ in 0..ROOT_PAGE_COLUMN {
        skipped = skipped.checked_add(stored_bytes(header.next()?)?)?;
    }
    let serial_type = header.next()?;
    if record.len() - header.0.len() > header_bytes {
        return None;
    }
    let value = record.get(skipped..)?;
    let length = match serial_type {
        1..=4 => serial_type as usize,
        9 => return Some(PageNo::FIRST),
        _ => return None,
    };
    let number = value.get(..length)?.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    PageNo::new(number)
}

/// Length of a column of this type.
fn stored_bytes(serial_type: u64) -> Option<usize> {
    let bytes = match serial_type {
        0 | 8 | 9 => 0,
        1..=4 => serial_type,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        text_or_blob => (text_or_blob - 12) / 2,
    };
    usize::try_from(bytes).ok()
}

/// SQLite's integers of 1 to 9 bytes, high bits first; the ninth byte has eight of them.
struct Varints<'a>(&'a [u8]);

impl Varints<'_> {
    fn next(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..9 {
            let byte = u64::from(*self.0.get(at)?);
            let is_last = at == 8 || byte < 0x80;
            value = if at == 8 { value << 8 | byte } else { value << 7 | byte & 0x7f };
            if is_last {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests;

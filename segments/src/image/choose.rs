//! Which pages a boot image should hold.
//!
//! In this order, as long as there is room: page 1; the pages of `sqlite_schema`; from the roots of all tables and
//! indexes downward, level by level, the interior pages; last, roots that are leaves, which are whole small tables.
//! A level of a tree is taken as a whole or not at all: part of it would help few queries, and finding it out costs
//! reads.

use std::collections::BTreeSet;

use crate::btree::BtreePage;
use crate::limits;
use crate::page::{Page, PageNo};

/// What choosing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Most useful first, with what they hold.
    pub pages: Vec<(PageNo, Page)>,
    /// More could be chosen if these were known.
    pub wanted: BTreeSet<PageNo>,
}

/// Chooses among the pages that `read` knows, of a database of `page_count` pages.
pub fn choose(page_count: u32, read: &dyn Fn(PageNo) -> Option<Page>) -> Choice {
    let mut chooser = Chooser { page_count, read, choice: Choice::default(), taken: BTreeSet::new() };
    let roots = chooser.take_schema();
    chooser.take_trees(roots);
    chooser.choice
}

struct Chooser<'a> {
    page_count: u32,
    read: &'a dyn Fn(PageNo) -> Option<Page>,
    choice: Choice,
    /// Each page is looked at once: hostile trees may have cycles.
    taken: BTreeSet<PageNo>,
}

impl Chooser<'_> {
    fn room(&self) -> usize {
        limits::BOOT_PAGES_MAX - self.choice.pages.len()
    }

    /// The page, or a wish to know it.
    fn page(&mut self, page_no: PageNo) -> Option<Page> {
        if page_no.get() > self.page_count || page_no == PageNo::LOCK_PAGE {
            return None;
        }
        let page = (self.read)(page_no);
        if page.is_none() {
            self.choice.wanted.insert(page_no);
        }
        page
    }

    fn take(&mut self, page_no: PageNo, page: Page) {
        if self.room() > 0 && self.taken.insert(page_no) {
            self.choice.pages.push((page_no, page));
        }
    }

    /// Takes the tree of `sqlite_schema`, and tells the roots that it lists.
    fn take_schema(&mut self) -> Vec<PageNo> {
        let (mut level, mut roots) = (vec![PageNo::FIRST], Vec::new());
        while !level.is_empty() && self.room() > 0 {
            let mut below = Vec::new();
            for page_no in level.into_iter().take(self.room()) {
                if self.taken.contains(&page_no) {
                    continue;
                }
                let Some(page) = self.page(page_no) else { continue };
                if let Some(parsed) = BtreePage::parse(page_no, &page) {
                    below.extend(parsed.children());
                    roots.extend(parsed.schema_roots());
                }
                self.take(page_no, page);
            }
            level = below;
        }
        roots
    }

    fn take_trees(&mut self, mut roots: Vec<PageNo>) {
        let mut seen = BTreeSet::new();
        roots.retain(|root| !self.taken.contains(root) && seen.insert(*root));
        // Of thousands of tables, those beyond would not get in anyway.
        roots.truncate(limits::BOOT_PAGES_MAX);
        let mut leaves = Vec::new();
        let mut levels: Vec<Vec<PageNo>> = Vec::new();
        for root in roots {
            let Some(page) = self.page(root) else { continue };
            match BtreePage::parse(root, &page) {
                Some(parsed) if parsed.is_interior() => levels.push(vec![root]),
                Some(_) => leaves.push((root, page)),
                None => {}
            }
        }
        while !levels.is_empty() {
            levels = levels.into_iter().filter_map(|level| self.take_level(level)).collect();
        }
        leaves.into_iter().for_each(|(root, page)| self.take(root, page));
    }

    /// Takes one level of a tree, if it consists of interior pages and fits, and tells the one below.
    fn take_level(&mut self, level: Vec<PageNo>) -> Option<Vec<PageNo>> {
        // A hostile page may have no children at all.
        if level.is_empty() || level.len() > self.room() || level.iter().any(|page_no| self.taken.contains(page_no)) {
            return None;
        }
        // All pages of a level are of one kind.
        let known = level.iter().find_map(|page_no| Some((*page_no, (self.read)(*page_no)?)));
        let (page_no, page) = match known {
            Some(known) => known,
            None => (level[0], self.page(level[0])?),
        };
        BtreePage::interior(page_no, &page)?;
        let pages: Vec<Option<(PageNo, Page)>> = level.into_iter().map(|it| Some((it, self.page(it)?))).collect();
        let mut below = Vec::new();
        for (page_no, page) in pages.into_iter().collect::<Option<Vec<_>>>()? {
            below.extend(BtreePage::parse(page_no, &page)?.children());
            self.take(page_no, page);
        }
        Some(below)
    }
}

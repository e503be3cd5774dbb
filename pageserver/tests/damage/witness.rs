//! Hears what a check finds.

use std::io;
use std::sync::Arc;

use pageserver::verify::{self, Damage, Options, Orphan, PageSink, Summary, Witness};
use segments::page::{Page, PageNo};
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::Store;

#[derive(Debug, Default)]
pub struct Found {
    pub damages: Vec<Damage>,
    pub orphans: Vec<Orphan>,
    pub notes: Vec<String>,
    pub pages: u64,
}

impl PageSink for Found {
    fn begin(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn page(&mut self, _: PageNo, _: &Page) -> io::Result<()> {
        self.pages += 1;
        Ok(())
    }
    fn finish(&mut self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

impl Witness for Found {
    fn damage(&mut self, damage: &Damage) {
        self.damages.push(damage.clone());
    }
    fn orphan(&mut self, orphan: &Orphan) {
        self.orphans.push(orphan.clone());
    }
    fn note(&mut self, key: &str, what: &str) {
        self.notes.push(format!("{key}: {what}"));
    }
    fn progress(&mut self, _: &Summary) {}
    fn pages(&mut self) -> Option<&mut dyn PageSink> {
        Some(self)
    }
}

pub async fn verify(store: &(impl Store + Clone), seam: &Seam, options: &Options) -> (Found, Summary) {
    let mut found = Found::default();
    let stores = Stores::one(Arc::new(store.clone()));
    let summary = verify::verify(&stores, seam, options, &mut found).await.unwrap();
    (found, summary)
}

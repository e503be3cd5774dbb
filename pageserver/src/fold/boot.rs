//! The boot image of a database that a fold writes beside the page map.

use std::collections::BTreeMap;

use segments::id::PackId;
use segments::image::{BootImage, Carried, Choice, Image, choose};
use segments::page::{Page, PageNo};
use tracing::debug;
use walstore::register::RecordError;

use super::{FoldJob, Folder, Made};
use crate::at_rest;
use crate::limits;

impl Folder<'_> {
    /// The image that stands beside the map of `made`. A page that cannot be read is left out: the image saves
    /// requests, and nothing depends on it.
    pub(crate) async fn boot(&self, job: &FoldJob, former: Option<&Image>, made: &mut Made) -> Option<Image> {
        let carried = match former {
            Some(Image::Boot(boot)) => boot.carry(&job.map, &job.input).ok(),
            _ => None,
        };
        let pages = match carried {
            Some(Carried::AsItIs(boot)) => return Some(Image::Boot(boot)),
            Some(Carried::Renewed(pages)) => pages,
            Some(Carried::ChooseAgain(known)) => self.choose(job, known, made).await,
            None => self.choose(job, Vec::new(), made).await,
        };
        let head = &job.head.value;
        let id = PackId { owner: head.database, epoch: head.epoch, seq: job.seq, nonce: self.seam.random_u64() };
        BootImage::new(id, made.map.lsn()?, &pages).map(Image::Boot)
    }

    /// Chooses among the pages of the tail, those that are `known` to be the same as of the new map, and a few more
    /// that are read.
    async fn choose(&self, job: &FoldJob, known: Vec<(PageNo, Page)>, made: &mut Made) -> Vec<(PageNo, Page)> {
        let mut known: BTreeMap<PageNo, Page> = known.into_iter().collect();
        let mut reads = 0;
        loop {
            let read = |page_no| job.input.pages.get(&page_no).or_else(|| known.get(&page_no)).cloned();
            let Choice { pages, wanted } = choose(made.map.page_count(), &read);
            if wanted.is_empty() {
                return pages;
            }
            for page_no in wanted {
                reads += 1;
                if reads > limits::BOOT_READS_MAX {
                    return pages;
                }
                match self.read_page(job, made, page_no).await {
                    Ok(page) => drop(known.insert(page_no, page.detached())),
                    Err(error) => {
                        debug!(database = %job.head.value.database, %page_no, %error, "not in the boot image");
                        return pages;
                    }
                }
            }
        }
    }

    async fn read_page(&self, job: &FoldJob, made: &mut Made, page_no: PageNo) -> Result<Page, RecordError> {
        at_rest::page(self.fetcher, job.head.value.database, &mut made.map, None, page_no).await
    }
}

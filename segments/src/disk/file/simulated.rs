//! A disk in memory that outlives the node, fails as disks do, and does the same for the same seed.
//!
//! What is written and not answered yet when a node dies may be there in part: a write puts the first bytes of it at
//! once, how many the seed decides, and the rest when it is answered.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use walstore::seam::Seam;
use walstore::seam::simulated::split_mix64;

use super::{CacheFile, Pending};

/// How often, in a million requests, each fault happens. At most one hits a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// EIO.
    pub failed: u32,
    /// A read that ends early.
    pub cut: u32,
    /// A bit of what is read or written is another.
    pub flipped: u32,
    /// Other bytes are read, or others written over.
    pub misplaced: u32,
    /// ENOSPC, after part of a write.
    pub full: u32,
    /// A write that is answered well and carried out in part.
    pub torn: u32,
    /// A write that is answered well and not carried out.
    pub lost: u32,
    /// A request that takes [`SLOW`].
    pub slow: u32,
    /// The longest that a request takes otherwise.
    pub latency_max: Duration,
}

/// Longer than anybody waits for a read.
pub const SLOW: Duration = Duration::from_millis(1_500);

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    Failed,
    Cut,
    Flipped,
    Misplaced,
    Full,
    Torn,
    Lost,
    Slow,
}

/// What may happen to a file while nobody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Flipped,
    /// Two stretches have changed places.
    Swapped,
    /// A stretch is as it was before.
    Stale,
    Zeroed,
    Truncated,
    Deleted,
}

impl Damage {
    pub const ALL: [Self; 6] =
        [Self::Flipped, Self::Swapped, Self::Stale, Self::Zeroed, Self::Truncated, Self::Deleted];
}

/// Told of each fault: whether it was a read, and what.
pub type OnFault = Arc<dyn Fn(bool, DiskFault) + Send + Sync>;

/// The disk. Cloning shares it.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<Content>>);

struct Content {
    bytes: Vec<u8>,
    /// What was written over lately.
    former: Vec<(usize, Vec<u8>)>,
    random: SplitMix,
    request_count: u64,
    /// Requests from the first number on, so many, fail with this.
    script: Option<(u64, u64, ErrorKind)>,
}

/// Former contents that a stale stretch may come from.
const FORMER_MAX: usize = 8;

/// The disk as one life of a node sees it.
struct SimulatedFile {
    disk: SimulatedDisk,
    seam: Seam,
    faults: DiskFaults,
    on_fault: OnFault,
}

impl SimulatedDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Content {
            bytes: Vec::new(),
            former: Vec::new(),
            random: SplitMix(seed),
            request_count: 0,
            script: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one life of a node.
    pub fn open(&self, seam: &Seam, faults: DiskFaults, on_fault: OnFault) -> Arc<dyn CacheFile> {
        Arc::new(SimulatedFile { disk: self.clone(), seam: seam.clone(), faults, on_fault })
    }

    /// Requests so far.
    pub fn request_count(&self) -> u64 {
        self.lock().request_count
    }

    /// Has `count` requests fail, from the number `from` on, counted from now.
    pub fn fail(&self, from: u64, count: u64, with: ErrorKind) {
        let mut content = self.lock();
        let from = content.request_count + from;
        content.script = Some((from, from.saturating_add(count), with));
    }

    /// Changes the file behind everybody's back.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        change(&mut self.lock().bytes)
    }

    /// Does some damage of this kind.
    pub fn damage(&self, damage: Damage) {
        let mut content = self.lock();
        let Content { bytes, former, random, .. } = &mut *content;
        if bytes.is_empty() {
            return;
        }
        let length = 1 + random.below(bytes.len().min(300_000));
        let (one, other) = (random.below(bytes.len() - length + 1), random.below(bytes.len() - length + 1));
        match damage {
            Damage::Flipped => bytes[one] ^= 1 << random.below(8),
            Damage::Swapped => {
                let (first, second) = (bytes[one..one + length].to_vec(), bytes[other..other + length].to_vec());
                bytes[other..other + length].copy_from_slice(&first);
                bytes[one..one + length].copy_from_slice(&second);
            }
            Damage::Stale => {
                let Some((at, old)) = former.pop() else { return };
                let end = (at + old.len()).min(bytes.len());
                if at < end {
                    bytes[at..end].copy_from_slice(&old[..end - at]);
                }
            }
            Damage::Zeroed => bytes[one..one + length].fill(0),
            Damage::Truncated => bytes.truncate(one),
            Damage::Deleted => bytes.clear(),
        }
    }
}

impl Content {
    /// Counts a request and decides what goes wrong with it, and how long it takes.
    fn begin(&mut self, faults: &DiskFaults, is_read: bool) -> Result<(Option<DiskFault>, Duration), io::Error> {
        let number = self.request_count;
        self.request_count += 1;
        if let Some((from, to, kind)) = self.script
            && (from..to).contains(&number)
        {
            return Err(kind.into());
        }
        let of_reads = [(faults.cut, DiskFault::Cut)];
        let of_writes = [(faults.full, DiskFault::Full), (faults.torn, DiskFault::Torn), (faults.lost, DiskFault::Lost)];
        let of_both = [
            (faults.failed, DiskFault::Failed),
            (faults.flipped, DiskFault::Flipped),
            (faults.misplaced, DiskFault::Misplaced),
            (faults.slow, DiskFault::Slow),
        ];
        let mut drawn = self.random.below(1_000_000) as u32;
        let mut fault = None;
        for (rate, kind) in of_both.iter().chain(if is_read { &of_reads[..] } else { &of_writes[..] }) {
            if drawn < *rate {
                fault = Some(*kind);
                break;
            }
            drawn -= rate;
        }
        let time = match fault {
            Some(DiskFault::Slow) => SLOW,
            _ => Duration::from_micros(self.random.below(faults.latency_max.as_micros() as usize + 1) as u64),
        };
        Ok((fault, time))
    }

    fn read(&mut self, fault: Option<DiskFault>, at: usize, bytes: usize) -> io::Result<Bytes> {
        let at = match fault {
            Some(DiskFault::Failed) => return Err(eio()),
            Some(DiskFault::Misplaced) => self.random.below(self.bytes.len() + 1),
            _ => at.min(self.bytes.len()),
        };
        let end = at.saturating_add(bytes).min(self.bytes.len());
        let mut read = self.bytes[at..end].to_vec();
        match fault {
            Some(DiskFault::Cut) => read.truncate(self.random.below(bytes)),
            Some(DiskFault::Flipped) if !read.is_empty() => {
                let at = self.random.below(read.len());
                read[at] ^= 1 << self.random.below(8);
            }
            _ => {}
        }
        Ok(read.into())
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if self.former.len() == FORMER_MAX {
            self.former.remove(0);
        }
        self.former.push((at, self.bytes[at..end].to_vec()));
        self.bytes[at..end].copy_from_slice(bytes);
    }

    /// What is there of a write before it is answered. Answers how it ends.
    fn begin_write(&mut self, fault: Option<DiskFault>, at: usize, bytes: &[u8]) -> WriteEnd {
        let part = self.random.below(bytes.len() + 1);
        match fault {
            Some(DiskFault::Failed) => WriteEnd::Fails(eio()),
            Some(DiskFault::Lost) => WriteEnd::Done,
            Some(DiskFault::Full) => {
                self.write(at, &bytes[..part]);
                WriteEnd::Fails(ErrorKind::StorageFull.into())
            }
            Some(DiskFault::Torn) => {
                self.write(at, &bytes[..part]);
                WriteEnd::Done
            }
            Some(DiskFault::Misplaced) => {
                let elsewhere = self.random.below(self.bytes.len() + 1);
                self.write(elsewhere, bytes);
                WriteEnd::Done
            }
            Some(DiskFault::Flipped) => {
                let mut bytes = bytes.to_vec();
                if let Some(byte) = bytes.get_mut(part) {
                    *byte ^= 1 << self.random.below(8);
                }
                self.write(at, &bytes);
                WriteEnd::Done
            }
            Some(DiskFault::Slow | DiskFault::Cut) | None => {
                self.write(at, &bytes[..part]);
                WriteEnd::Goes
            }
        }
    }
}

enum WriteEnd {
    /// The rest of it is written, too.
    Goes,
    Done,
    Fails(io::Error),
}

fn eio() -> io::Error {
    io::Error::other("input/output error (simulated)")
}

impl SimulatedFile {
    /// What goes wrong with the next request, and how long it takes.
    fn begin(&self, is_read: bool) -> io::Result<(Option<DiskFault>, Duration)> {
        let (fault, time) = self.disk.lock().begin(&self.faults, is_read)?;
        if let Some(fault) = fault {
            (self.on_fault)(is_read, fault);
        }
        Ok((fault, time))
    }
}

async fn pass(seam: &Seam, time: Duration) {
    if !time.is_zero() {
        seam.sleep(time).await;
    }
}

impl CacheFile for SimulatedFile {
    fn read(&self, at: u64, bytes: usize) -> Pending<Bytes> {
        let (begun, disk, seam) = (self.begin(true), self.disk.clone(), self.seam.clone());
        Box::pin(async move {
            let (fault, time) = begun?;
            pass(&seam, time).await;
            disk.lock().read(fault, at as usize, bytes)
        })
    }

    fn write(&self, at: u64, bytes: Bytes) -> Pending<()> {
        let (begun, disk, seam) = (self.begin(false), self.disk.clone(), self.seam.clone());
        Box::pin(async move {
            let (fault, time) = begun?;
            let end = disk.lock().begin_write(fault, at as usize, &bytes);
            pass(&seam, time).await;
            match end {
                WriteEnd::Goes => disk.lock().write(at as usize, &bytes),
                WriteEnd::Done => {}
                WriteEnd::Fails(error) => return Err(error),
            }
            Ok(())
        })
    }

    fn bytes(&self) -> u64 {
        self.disk.lock().bytes.len() as u64
    }
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated disk")
    }
}

struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, end: usize) -> usize {
        (split_mix64(&mut self.0) % end.max(1) as u64) as usize
    }
}

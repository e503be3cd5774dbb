//! What is in the file at the start: headers and directories, region by region.
//!
//! A region is read from its start, batch after batch, until one is not whole or belongs to an earlier filling. Its
//! entries are hints; whether their slots hold what they should is seen when they are read.

use std::io;

use super::batch::{self, DirectoryEntry, Header};
use super::cache::Disk;
use super::geometry::Geometry;

/// One region, as the file has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FoundRegion {
    pub seq: u64,
    pub filled: u32,
    pub entries: Vec<DirectoryEntry>,
}

/// Reads one region's headers and directories.
pub(super) async fn region(disk: &Disk, geometry: Geometry, region: u32) -> io::Result<FoundRegion> {
    let (region_bytes, start) = (geometry.region_bytes(), geometry.start(region));
    let mut found = FoundRegion::default();
    let mut next = disk.read(start, batch::HEADER_BYTES).await?;
    while let Some(header) = Header::decode(&next, region_bytes, region, found.filled) {
        if found.filled > 0 && header.at.seq != found.seq {
            break;
        }
        // The directory is the end of the batch, so the next header comes with it.
        let from = header.directory_offset();
        let end = header.at.offset + header.bytes;
        let upto = (end as usize + batch::HEADER_BYTES).min(region_bytes as usize);
        let bytes = disk.read(start + u64::from(from), upto - from as usize).await?;
        let directory_bytes = (end - from) as usize;
        let Some(entries) = bytes.get(..directory_bytes).and_then(|bytes| header.decode_directory(bytes)) else { break };
        found.seq = header.at.seq;
        found.filled = end;
        found.entries.extend(entries);
        next = bytes.slice(directory_bytes..);
    }
    Ok(found)
}

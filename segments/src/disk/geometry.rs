//! How a cache of a given size is divided.

use crate::limits;

/// The regions of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    region_bytes: u32,
    region_count: u32,
}

impl Geometry {
    /// As many regions as fit into `capacity_bytes`; `None` if there would be too few to be of use.
    pub fn of_capacity(capacity_bytes: u64) -> Option<Self> {
        let wanted = (capacity_bytes / limits::REGIONS_WANTED).max(1);
        let region_bytes = 1 << wanted.ilog2().min(limits::REGION_BYTES_MAX.ilog2());
        let region_bytes = u32::max(region_bytes, limits::REGION_BYTES_MIN);
        let region_count = capacity_bytes / u64::from(region_bytes);
        let region_count = u32::try_from(region_count).unwrap_or(u32::MAX).min(limits::REGIONS_MAX);
        (region_count >= limits::REGIONS_MIN).then_some(Self { region_bytes, region_count })
    }

    pub fn region_bytes(&self) -> u32 {
        self.region_bytes
    }

    pub fn region_count(&self) -> u32 {
        self.region_count
    }

    /// Where a region begins in the file.
    pub(super) fn start(&self, region: u32) -> u64 {
        u64::from(region) * u64::from(self.region_bytes)
    }

    /// What is gathered before it is written.
    pub(super) fn batch_bytes(&self) -> usize {
        limits::BATCH_BYTES.min(self.region_bytes as usize / 2)
    }

    /// Bytes of the file when every region is in use.
    pub fn file_bytes(&self) -> u64 {
        self.start(self.region_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_never_takes_more_than_it_may_and_nearly_all_of_it() {
        let mut capacity = 1_u64;
        while capacity < 1 << 43 {
            for capacity in [capacity, capacity + capacity / 3, capacity * 2 - 1] {
                match Geometry::of_capacity(capacity) {
                    None => assert!(capacity < 2 << 20, "{capacity}"),
                    Some(geometry) => {
                        assert!(geometry.file_bytes() <= capacity);
                        assert!(geometry.file_bytes() >= capacity - capacity / 4, "{capacity}: {geometry:?}");
                    }
                }
            }
            capacity *= 2;
        }
        assert_eq!(Geometry::of_capacity(512 << 20), Some(Geometry { region_bytes: 4 << 20, region_count: 128 }));
    }
}

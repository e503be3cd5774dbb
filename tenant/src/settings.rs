//! What a database was promised when it was created, and what its plan allows.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | commit window in milliseconds, 0 for none |
//! | 4 | retention in seconds, 0 for none |
//! | 4 | quota: pages of the database at most, 0 for none |
//! | 1 | key id of its objects, 0 not encrypted |
//! | 8 | created, microseconds since the Unix epoch |
//! | 8 | expires: from then on the database may be deleted by itself, microseconds since the Unix epoch, 0 for never |

use walstore::envelope::{Corrupt, Reader, Writer};

use crate::limits;

/// The module's documentation tells what each field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub window_millis: u16,
    pub retention_secs: u32,
    pub size_pages_max: u32,
    pub key_id: u8,
    pub created_micros: u64,
    pub expires_micros: u64,
}

impl Settings {
    /// No window, no retention, no quota, no encryption, no end.
    pub fn new(created_micros: u64) -> Self {
        Self { window_millis: 0, retention_secs: 0, size_pages_max: 0, key_id: 0, created_micros, expires_micros: 0 }
    }

    /// Whether its time is up.
    pub fn is_expired(&self, now_micros: u64) -> bool {
        self.expires_micros != 0 && self.expires_micros <= now_micros
    }

    pub fn check(&self) -> Result<(), Corrupt> {
        if self.window_millis > limits::WINDOW_MILLIS_MAX {
            return Err(Corrupt::new(format!("a window of {} ms", self.window_millis)));
        }
        if self.created_micros > limits::CREATED_MICROS_MAX {
            return Err(Corrupt::new(format!("created at {} us", self.created_micros)));
        }
        Ok(())
    }

    pub(crate) fn write(&self, body: &mut Writer) {
        body.u16(self.window_millis);
        body.u32(self.retention_secs);
        body.u32(self.size_pages_max);
        body.u8(self.key_id);
        body.u64(self.created_micros);
        body.u64(self.expires_micros);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let settings = Self {
            window_millis: reader.u16()?,
            retention_secs: reader.u32()?,
            size_pages_max: reader.u32()?,
            key_id: reader.u8()?,
            created_micros: reader.u64()?,
            expires_micros: reader.u64()?,
        };
        settings.check()?;
        Ok(settings)
    }
}

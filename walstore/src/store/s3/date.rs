//! The store's clock, as the `Date` of its latest answer has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

/// Clones share what they know. 0: no answer has told a date yet.
#[derive(Clone, Debug, Default)]
pub struct LatestDate(Arc<AtomicU64>);

impl LatestDate {
    pub fn micros(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|micros| *micros > 0)
    }

    /// An HTTP date. Whatever else it is, it tells nothing.
    fn hear(&self, date: &str) {
        if let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate)
            && let Some(micros) = u64::try_from(date.secs()).ok().and_then(|secs| secs.checked_mul(1_000_000))
        {
            self.0.store(micros, Ordering::Relaxed);
        }
    }
}

impl Intercept for LatestDate {
    fn name(&self) -> &'static str {
        "LatestDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.hear(date);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_date_tells_the_time() {
        let latest = LatestDate::default();
        latest.hear("yesterday");
        assert_eq!(latest.micros(), None);
        latest.hear("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(latest.micros(), Some(784_111_777_000_000));
        latest.hear("");
        assert_eq!(latest.micros(), Some(784_111_777_000_000));
    }
}

//! The store's clock, as the `Date` of its latest answer has it. That of a store on this machine is this machine's, and
//! believed only as long as it does not jump.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::clock::SteadyClock;
use crate::seam;

/// Clones share what they know.
#[derive(Clone, Debug)]
pub struct LatestDate(Arc<Heard>);

#[derive(Debug)]
struct Heard {
    /// Of a store on this machine.
    clock: Option<SteadyClock>,
    /// 0: no answer has told a date that is to be believed.
    latest_micros: AtomicU64,
}

impl LatestDate {
    /// Of the store at `endpoint`; `None`: AWS.
    pub fn of(endpoint: Option<&str>) -> Self {
        let is_here = endpoint.is_some_and(is_on_this_machine);
        let clock = is_here.then(|| SteadyClock::new(0));
        Self(Arc::new(Heard { clock, latest_micros: AtomicU64::new(0) }))
    }

    pub fn micros(&self) -> Option<u64> {
        Some(self.0.latest_micros.load(Ordering::Relaxed)).filter(|micros| *micros > 0)
    }

    /// An HTTP date. Whatever else it is, it tells nothing.
    fn hear(&self, date: &str, boot_micros: u64) {
        if let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate)
            && let Some(micros) = u64::try_from(date.secs()).ok().and_then(|secs| secs.checked_mul(1_000_000))
        {
            let believed = self.0.clock.as_ref().map_or(Some(micros), |clock| clock.date_micros(micros, boot_micros));
            self.0.latest_micros.store(believed.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Whether the address is one of this machine by itself. Of a name that leads here nobody knows.
fn is_on_this_machine(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let host = host.unwrap_or_default();
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
            self.hear(date, seam::boot_micros());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_date_tells_the_time() {
        let latest = LatestDate::of(None);
        latest.hear("yesterday", 0);
        assert_eq!(latest.micros(), None);
        latest.hear("Fri, 06 Nov 2026 08:49:37 GMT", 0);
        assert_eq!(latest.micros(), Some(1_793_954_977_000_000));
        latest.hear("", 0);
        assert_eq!(latest.micros(), Some(1_793_954_977_000_000));
    }

    #[test]
    fn a_store_is_on_this_machine_if_its_address_says_so() {
        for here in ["http://127.0.0.1:9000", "https://localhost", "http://LOCALHOST:9000/x", "http://[::1]:9000", "127.0.0.2"] {
            assert!(is_on_this_machine(here), "{here}");
        }
        for elsewhere in ["https://s3.eu-west-1.amazonaws.com", "http://10.0.0.1:9000", "http://minio:9000", "http://[fe80::1]", ""] {
            assert!(!is_on_this_machine(elsewhere), "{elsewhere}");
        }
    }

    /// Such as a MinIO's when the machine's clock is set: the node's jumps with it.
    #[test]
    fn the_clock_of_a_store_on_this_machine_is_not_believed_when_it_jumps() {
        const HOUR: u64 = 3_600_000_000;
        let latest = LatestDate::of(Some("http://127.0.0.1:9000"));
        latest.hear("Fri, 06 Nov 2026 08:00:00 GMT", HOUR);
        let before = latest.micros().unwrap();
        latest.hear("Sat, 06 Nov 2027 08:30:00 GMT", HOUR + HOUR / 2);
        assert_eq!(latest.micros(), Some(before + HOUR / 2));
        latest.hear("Sat, 06 Nov 2027 09:30:00 GMT", 2 * HOUR + HOUR / 2);
        assert_eq!(latest.micros(), None);
        latest.hear("Fri, 06 Nov 2026 10:00:00 GMT", 3 * HOUR);
        assert_eq!(latest.micros(), Some(before + 2 * HOUR));
        // Another machine's is another clock.
        let elsewhere = LatestDate::of(Some("http://10.0.0.1:9000"));
        elsewhere.hear("Fri, 06 Nov 2026 08:00:00 GMT", HOUR);
        elsewhere.hear("Sat, 06 Nov 2027 08:30:00 GMT", HOUR + HOUR / 2);
        assert_eq!(elsewhere.micros(), Some(before + 365 * 24 * HOUR + HOUR / 2));
    }
}

//! Latency profiles: how long a store takes to answer, as a distribution per kind of request.
//!
//! Published measurements give three quantiles: p50, p90 and p99. A log-normal that starts at a fixed
//! floor, `floor + scale · e^(sigma · z)` with a standard normal `z`, has three parameters and so meets all
//! three exactly; the floor is the round trip that no request undercuts. All times are milliseconds.

use std::str::FromStr;
use std::time::Duration;

use crate::class::Operation;
use crate::dice::Dice;

/// The standard normal's 90th and 99th percentiles.
const Z90: f64 = 1.281_551_565_544_6;
const Z99: f64 = 2.326_347_874_040_8;

/// The range in which the fit looks for sigma. Below it the distribution is a normal one for every
/// practical purpose; above it the 99th percentile would be thousands of times the median.
const SIGMA_RANGE: (f64, f64) = (0.01, 4.0);

/// How long one kind of request takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    floor_ms: f64,
    scale_ms: f64,
    sigma: f64,
}

impl Latency {
    /// No delay.
    pub const NONE: Self = Self::fixed(0.0);

    /// Always `ms` milliseconds.
    pub const fn fixed(ms: f64) -> Self {
        Self { floor_ms: ms, scale_ms: 0.0, sigma: 0.0 }
    }

    /// The log-normal with a floor that has these quantiles.
    ///
    /// A log-normal has its long tail to the right. Quantiles that say otherwise get the nearest fit that
    /// keeps p50 and p99.
    ///
    /// # Panics
    /// Unless `0 ≤ p50 ≤ p90 ≤ p99`, all finite.
    pub fn from_quantiles(p50: f64, p90: f64, p99: f64) -> Self {
        let ordered = 0.0 <= p50 && p50 <= p90 && p90 <= p99 && p99.is_finite();
        assert!(ordered, "{p50}/{p90}/{p99} are not quantiles in milliseconds");
        if p99 == p50 {
            return Self::fixed(p50);
        }
        let tail = (p90 - p50) / (p99 - p50);
        let sigma = sigma_for(tail);
        let scale_ms = (p99 - p50) / ((sigma * Z99).exp() - 1.0);
        Self { floor_ms: p50 - scale_ms, scale_ms, sigma }
    }

    fn at(&self, z: f64) -> f64 {
        (self.floor_ms + self.scale_ms * (self.sigma * z).exp()).max(0.0)
    }

    pub(crate) fn draw(&self, dice: &mut Dice) -> Duration {
        let z = if self.sigma == 0.0 { 0.0 } else { dice.normal() };
        Duration::from_secs_f64(self.at(z) / 1000.0)
    }
}

/// Finds the sigma whose distribution puts p90 at the share `tail` of the way from p50 to p99. That share
/// falls as sigma grows, so bisection finds it.
fn sigma_for(tail: f64) -> f64 {
    let share = |sigma: f64| ((sigma * Z90).exp() - 1.0) / ((sigma * Z99).exp() - 1.0);
    let (mut low, mut high) = SIGMA_RANGE;
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if share(middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The latencies of a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    pub put: Latency,
    /// Also HEAD and requests about the bucket itself.
    pub get: Latency,
    pub list: Latency,
    pub delete: Latency,
}

impl Profile {
    /// Answers as fast as it can.
    pub fn local() -> Self {
        Self::fixed(0.0)
    }

    /// The same constant for every request.
    pub fn fixed(ms: f64) -> Self {
        let always = Latency::fixed(ms);
        Self { put: always, get: always, list: always, delete: always }
    }

    /// S3 standard, from within its region. A DELETE takes as long as a PUT.
    pub fn s3std() -> Self {
        let put = Latency::from_quantiles(28.0, 37.0, 75.0);
        let get = Latency::from_quantiles(24.5, 38.0, 88.0);
        Self { put, get, list: Latency::from_quantiles(25.0, 32.0, 62.0), delete: put }
    }

    /// S3 Express One Zone, from within its zone. A LIST takes as long as a GET.
    pub fn express() -> Self {
        let put = Latency::from_quantiles(5.0, 7.0, 12.0);
        let get = Latency::from_quantiles(4.0, 6.0, 10.0);
        Self { put, get, list: get, delete: put }
    }

    pub(crate) fn of(&self, operation: Operation) -> Latency {
        match operation {
            Operation::Put => self.put,
            Operation::Get | Operation::Head | Operation::Other => self.get,
            Operation::List => self.list,
            Operation::Delete => self.delete,
        }
    }
}

/// A profile's name that is not one of those below.
#[derive(Debug)]
pub struct UnknownProfile(String);

impl std::fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no profile {:?}: it is local, s3std, express or fixed:<milliseconds>", self.0)
    }
}

impl std::error::Error for UnknownProfile {}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let unknown = || UnknownProfile(name.to_owned());
        match name {
            "local" => Ok(Self::local()),
            "s3std" => Ok(Self::s3std()),
            "express" => Ok(Self::express()),
            _ => {
                let ms = name.strip_prefix("fixed:").ok_or_else(unknown)?;
                let ms: f64 = ms.parse().map_err(|_| unknown())?;
                // An hour is more than any client waits, and far from what a Duration cannot hold.
                if (0.0..=3_600_000.0).contains(&ms) { Ok(Self::fixed(ms)) } else { Err(unknown()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: [(f64, f64, f64); 5] = [
        (28.0, 37.0, 75.0),
        (24.5, 38.0, 88.0),
        (25.0, 32.0, 62.0),
        (5.0, 7.0, 12.0),
        (4.0, 6.0, 10.0),
    ];

    #[test]
    fn the_fit_meets_every_published_quantile() {
        for (p50, p90, p99) in PUBLISHED {
            let latency = Latency::from_quantiles(p50, p90, p99);
            for (want, z) in [(p50, 0.0), (p90, Z90), (p99, Z99)] {
                let got = latency.at(z);
                assert!((got - want).abs() < 0.001, "{got} for {want} of {p50}/{p90}/{p99}");
            }
        }
    }

    #[test]
    fn draws_have_the_quantiles_of_the_distribution() {
        for (p50, p90, p99) in PUBLISHED {
            let latency = Latency::from_quantiles(p50, p90, p99);
            let mut dice = Dice::new(42);
            let mut drawn: Vec<_> =
                (0..20_000).map(|_| latency.draw(&mut dice).as_secs_f64() * 1000.0).collect();
            drawn.sort_by(f64::total_cmp);
            for (want, index) in [(p50, 10_000), (p90, 18_000), (p99, 19_800)] {
                let got = drawn[index];
                assert!((got / want - 1.0).abs() < 0.1, "{got} for {want} of {p50}/{p90}/{p99}");
            }
        }
    }

    #[test]
    fn constant_and_left_leaning_quantiles_have_a_fit_too() {
        assert_eq!(Latency::from_quantiles(3.0, 3.0, 3.0), Latency::fixed(3.0));
        let leaning = Latency::from_quantiles(10.0, 19.0, 20.0);
        assert!((leaning.at(0.0) - 10.0).abs() < 0.001);
        assert!((leaning.at(Z99) - 20.0).abs() < 0.001);
    }

    #[test]
    fn profiles_are_found_by_name() {
        assert_eq!("s3std".parse::<Profile>().unwrap(), Profile::s3std());
        assert_eq!("fixed:28".parse::<Profile>().unwrap(), Profile::fixed(28.0));
        for wrong in
            ["", "S3STD", "fixed", "fixed:", "fixed:-1", "fixed:nan", "fixed:inf", "fixed:1e300"]
        {
            assert!(wrong.parse::<Profile>().is_err(), "{wrong:?} is no profile");
        }
    }
}

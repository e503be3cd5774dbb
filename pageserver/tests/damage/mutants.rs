//! A node that believes what it reads must be caught. Run with `--features mutants`.

use walstore::mutant::{self, Mutant};

use crate::bucket::Bucket;
use crate::damaged;

/// Far more damages than it takes.
const DAMAGES: u64 = 2_000;

#[tokio::test(start_paused = true)]
async fn a_mutant_that_looks_at_no_checksum_of_a_frame_serves_damage() {
    let buckets = [Bucket::new().await, Bucket::past().await];
    mutant::turn_on(Some(Mutant::SkipFrameCheck));
    for seed in 0..DAMAGES {
        let outcome = damaged(&buckets[usize::from(seed % 8 == 0)], seed).await;
        if let Some(broken) = outcome.broken.iter().find(|line| line.ends_with("other pages are served")) {
            mutant::turn_on(None);
            println!("{}: caught by R11 ({broken})", Mutant::SkipFrameCheck);
            return;
        }
    }
    panic!("{} lives", Mutant::SkipFrameCheck);
}

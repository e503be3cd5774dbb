//! A database's pages through its whole life, against a plain model.
//!
//! The model is what SQLite's file would hold after each commit. The database is what this crate makes of the
//! same commits: encoded and decoded, folded at random points, read back through a page map that was
//! itself stored and decoded. Nothing survives a fold but the bytes in a "bucket".
//!
//! Proved for random histories of growth, shrinking and regrowth:
//! - I9: every page equals the model's after every fold, also through the map of an earlier snapshot as long as
//!   its packs are there;
//! - I10: no page inside the database lacks a source;
//! - packs reported dead are not needed.

mod world;

use proptest::prelude::*;
use segments::fold::FoldInput;
use segments::limits;
use world::World;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Writes some pages, without a change of size unless they lie beyond.
    Write(Vec<u32>),
    /// Writes a run of pages.
    WriteRun { first: u32, pages: u32 },
    /// Changes the size to that many pages, like VACUUM or growth by a blob.
    Resize(u32),
    /// Folds all but the last few commits.
    Fold { keep: usize },
    /// Merges without commits.
    Idle,
    /// Gives dead space back.
    Compact,
}

fn step(pages_max: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(1..=pages_max, 1..6).prop_map(Step::Write),
        2 => (1..=pages_max, 1u32..80).prop_map(|(first, pages)| Step::WriteRun { first, pages }),
        2 => (1..=pages_max).prop_map(Step::Resize),
        5 => (0usize..3).prop_map(|keep| Step::Fold { keep }),
        1 => Just(Step::Idle),
        1 => Just(Step::Compact),
    ]
}

fn run(world: &mut World, step: &Step) {
    match step {
        Step::Write(pages) => {
            let page_count = pages.iter().fold(world.page_count(), |count, page| count.max(*page));
            world.commit(page_count, pages);
        }
        Step::WriteRun { first, pages } => {
            let pages: Vec<u32> = (*first..first + pages).collect();
            world.commit(world.page_count().max(first + pages.len() as u32 - 1), &pages);
        }
        Step::Resize(page_count) => world.commit(*page_count, &[1, *page_count]),
        Step::Fold { keep } => {
            world.fold(*keep);
        }
        Step::Idle => {
            world.fold(usize::MAX);
        }
        Step::Compact => {
            world.compact();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn pages_at_rest_equal_the_model(steps in proptest::collection::vec(step(200), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            run(&mut world, step);
        }
        world.fold(0);
        world.check();
    }

    #[test]
    fn tiny_databases_too(steps in proptest::collection::vec(step(6), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            run(&mut world, step);
        }
        world.fold(0);
        world.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 500, ..ProptestConfig::default() })]

    /// "Little dead space" is a promise about the bucket, not about what the map says.
    #[test]
    fn after_compacting_packs_hold_little_besides_the_database(
        steps in proptest::collection::vec(step(1500), 1..40),
    ) {
        let mut world = World::new();
        world.load(1500);
        for step in &steps {
            run(&mut world, step);
        }
        world.fold(0);
        world.compact();
        let (packs, fresh) = world.pack_bytes();
        prop_assert!(world.is_in_head() || packs * 100 <= fresh * 122, "{packs} bytes for {fresh}");
        prop_assert_eq!(world.compact(), 0);
        world.check();
    }
}

#[test]
fn random_updates_leave_no_more_than_compacting_gives_back() {
    let mut world = World::new();
    world.load(3000);
    for round in 0..60u32 {
        let pages: Vec<u32> = (0..60).map(|at| 1 + (round * 7919 + at * 104_729) % 3000).collect();
        world.commit(3000, &pages);
        world.fold(0);
    }
    let before = world.pack_bytes().0;
    let steps = world.compact();
    let (packs, fresh) = world.pack_bytes();
    println!("{before} bytes before, {packs} after {steps} steps, {fresh} fresh");
    assert!(steps > 0 && packs * 100 <= fresh * 115, "{before} bytes before, {packs} after, {fresh} fresh");
    world.check();
}

/// A pack of next to nothing is mostly header, table and footer. Taken for dead space, they are written anew without end.
#[test]
fn compacting_ends_where_a_pack_holds_less_than_what_is_around_it() {
    let mut world = World::new();
    world.load(2000);
    world.commit_zeros(2000, &(1..=2000).collect::<Vec<_>>());
    world.fold(0);
    assert!(!world.is_in_head());
    assert_eq!(world.compact(), 0);
    world.check();
}

/// A database that grows out of its head, shrinks, and comes back, with the same pages all the while.
#[test]
fn a_small_database_lives_in_its_head_and_moves_when_it_must() {
    let mut world = World::new();
    let mut moves = Vec::new();
    for page_count in [1, 7, 8, 200, 30, 6, 4, 3, 7, 8, 6, 300, 2] {
        world.commit(page_count, &(1..=page_count).collect::<Vec<_>>());
        world.fold(0);
        world.commit(page_count, &[1]);
        world.fold(0);
        world.check();
        moves.push(world.is_in_head());
        assert_eq!(world.fold(usize::MAX), 0, "nothing to merge");
    }
    // 4 KiB a page: 7 pages fit, and with hysteresis 4 of them come back.
    assert_eq!(moves, [1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1].map(|is_in_head| is_in_head == 1));
}

#[test]
fn the_pages_of_a_boot_image_follow_every_fold() {
    let mut world = World::new();
    world.load(300);
    assert!(world.boot_pages() > 2, "{} pages", world.boot_pages());
    world.commit(300, &[2, 3]);
    world.fold(0);
    let kept = world.boot_pages();
    world.commit(300, &[1, 8]);
    world.fold(0);
    assert!(kept > 2 && world.boot_pages() == kept);
    // Cut off and grown over: what it held of these is not known any more.
    world.commit(3, &[1]);
    world.commit(300, &(4..=300).filter(|page| page % 7 != 1).chain([299]).collect::<Vec<_>>());
    world.fold(0);
    world.check();
}

/// A page cut off by a shrink stood in an older delta and came back when the database grew over it again.
/// Damage would be: rows of a dropped table in a new one.
#[test]
fn pages_of_a_shrunk_database_do_not_come_back_when_it_grows() {
    for folds in 0..8u32 {
        let mut world = World::new();
        let fold = |world: &mut World, bit: u32| {
            if folds >> bit & 1 == 1 {
                world.fold(0);
            }
        };
        world.commit(100, &(1..=100).collect::<Vec<_>>());
        world.commit(100, &[50, 70, 100]);
        fold(&mut world, 0);
        world.commit(40, &[1]);
        fold(&mut world, 1);
        world.commit(100, &[1, 100]);
        fold(&mut world, 2);
        world.commit(100, &[2]);
        world.fold(0);
        world.check();
    }
}

#[test]
fn a_one_row_update_of_a_large_database_folds_to_little() {
    let mut world = World::new();
    world.load(25_600);
    for round in 0..40 {
        // In between, others write a lot, so that there are deltas to merge and to absorb.
        if round % 4 == 3 {
            let pages: Vec<u32> = (0..250).map(|at| 1 + (at * 7919 + round * 31) % 25_600).collect();
            world.commit(25_600, &pages);
            world.fold(0);
        }
        world.commit(25_600, &[1, 2 + round * 617 % 25_000, 25_600 - round]);
        let written = world.fold(0);
        assert!(written < 256 << 10, "round {round}: {written} bytes");
    }
    world.check();
}

#[test]
fn deltas_stay_few_and_light_under_random_writes() {
    let mut world = World::new();
    world.load(4_000);
    let (mut deltas_seen, mut written) = (0, 0);
    for round in 0..120u32 {
        let pages: Vec<u32> = (0..60).map(|at| 1 + (at * 7919 + round * 3571) % 4_000).collect();
        world.commit(4_000, &pages);
        written += world.fold(0);
        let pages: u64 = world.map().deltas().map(|delta| u64::from(delta.page_count)).sum();
        assert!(pages <= 2_200, "round {round}: {pages} pages in deltas");
        deltas_seen = deltas_seen.max(world.map().deltas().len());
    }
    assert!(deltas_seen <= limits::DELTAS_TARGET + 1, "{deltas_seen} deltas at once");
    let amplification = written as f64 / (120.0 * 60.0 * 4096.0);
    assert!(amplification < 5.0, "{amplification} bytes written for each that changed");
    world.check();
}

#[test]
fn small_folds_after_large_ones_never_exceed_the_format() {
    let mut world = World::new();
    world.load(3_200);
    for round in 0..60u32 {
        // Sizes fall by four, again and again: the worst order for absorbing the smallest.
        let count = 512 >> (2 * (round % 5));
        let pages: Vec<u32> = (0..count).map(|at| 1 + (at * 127 + round * 977) % 3_200).collect();
        world.commit(3_200, &pages);
        world.fold(0);
        assert!(world.map().deltas().len() <= limits::DELTAS_MAX);
    }
    world.check();
}

#[test]
fn merges_without_commits_pay_a_debt_and_come_to_an_end() {
    let mut world = World::new();
    world.load(40_000);
    assert_eq!(world.fold(usize::MAX), 0, "there is nothing to merge");
    world.commit(40_000, &(1..=40_000).filter(|page| page % 32 != 0).collect::<Vec<_>>());
    world.fold(0);
    let rounds = (0..20).take_while(|_| world.fold(usize::MAX) > 0).count();
    assert!((2..10).contains(&rounds), "{rounds} merges without commits");
    let pages = world.map().deltas().map(|delta| u64::from(delta.page_count)).max();
    assert!(pages > Some(0), "a merge goes only as far as it must");
    world.check();
}

#[test]
fn a_tail_that_leaves_a_hole_is_refused() {
    let mut world = World::new();
    world.commit(10, &[1, 10]);
    world.fold(0);
    let mut input = FoldInput::new(world::DATABASE, world.map());
    let lsn = walstore::id::Lsn::after(input.lsn);
    let page = |page| segments::page::PageNo::new(page).unwrap();
    input.add(lsn, 12, [(page(12), segments::page::Page::zeroed())]);
    let error = segments::fold::plan_fold(world.map(), &input, &|_| None).unwrap_err();
    assert!(error.to_string().contains("leaves page 11 undefined"), "{error}");
}

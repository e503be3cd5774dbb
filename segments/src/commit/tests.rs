use bytes::Bytes;
use proptest::prelude::*;
use walstore::id::DatabaseId;

use super::*;
use crate::page::PAGE_BYTES;

const DATABASE: DatabaseId = DatabaseId::from_bytes([7; 16]);

fn no(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

fn filled(byte: u8) -> Page {
    Page::copy_of(&[byte; PAGE_BYTES])
}

/// A page that does not compress.
fn noise(seed: u64) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    Page::copy_of(&bytes)
}

fn with_bytes(page: &Page, at: usize, bytes: &[u8]) -> Page {
    let mut content = *page.as_bytes();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    Page::copy_of(&content)
}

fn commit(tip: &Tip, page_count: u32, pages: &[(u32, Page)]) -> Commit {
    let pages = pages.iter().map(|(page, content)| (no(*page), content.clone())).collect();
    Commit::new(tip, 1_000, page_count, pages).unwrap()
}

fn no_base(_: PageNo) -> Option<Base> {
    None
}

fn decode_on(encoded: &Encoded, tip: &Tip) -> CheckedCommit {
    UncheckedCommit::decode(&encoded.bytes).unwrap().check(tip).unwrap()
}

/// Two commits: pages 1 to 3 whole, then a row in pages 1 and 3.
fn one_row_history() -> (Tip, Commit, Encoded, Commit, Encoded) {
    let start = Tip::before_first(DATABASE);
    let first = commit(&start, 3, &[(1, noise(1)), (2, noise(2)), (3, noise(3))]);
    let first_encoded = encode(&first, &start, &no_base);
    let tip = first_encoded.tip;
    let changed = [(1, with_bytes(&noise(1), 24, &[0, 0, 0, 2])), (3, with_bytes(&noise(3), 3000, &[9; 100]))];
    let second = commit(&tip, 3, &changed);
    let base = |page: PageNo| Some(Base { lsn: Lsn::FIRST, page: noise(page.get().into()), patches_in_a_row: 0 });
    let second_encoded = encode(&second, &tip, &base);
    (start, first, first_encoded, second, second_encoded)
}

#[test]
fn golden_commit() {
    let (_, _, first, _, second) = one_row_history();
    let hash = |encoded: &Encoded| blake3::hash(&encoded.bytes).to_hex()[..16].to_owned();
    let expected = include_str!("../../golden/commit.b3");
    assert_eq!(format!("{} whole\n{} patched\n", hash(&first), hash(&second)), expected);
}

#[test]
fn a_one_row_commit_takes_a_few_hundred_bytes() {
    let (start, first, first_encoded, second, second_encoded) = one_row_history();
    assert_eq!(second_encoded.patched, [true, true]);
    assert!(second_encoded.bytes.len() < 300, "{} bytes", second_encoded.bytes.len());

    let first_checked = decode_on(&first_encoded, &start);
    assert_eq!(first_checked.tip(), first_encoded.tip);
    assert_eq!(first_checked.apply(|_, _| Err("no base is needed")), Ok(first.clone()));

    let checked = decode_on(&second_encoded, &first_encoded.tip);
    assert_eq!(checked.bases().collect::<Vec<_>>(), [(no(1), Lsn::FIRST), (no(3), Lsn::FIRST)]);
    let base = |page: PageNo, _| Ok::<_, ()>(noise(page.get().into()));
    assert_eq!(checked.apply(base), Ok(second));
}

#[test]
fn a_wrong_base_is_noticed_and_an_unreadable_one_reported() {
    let (_, _, first, _, second) = one_row_history();
    let checked = decode_on(&second, &first.tip);
    let wrong = checked.clone().apply(|_, _| Ok::<_, ()>(noise(9)));
    let Err(ApplyError::Corrupt(corrupt)) = wrong else { panic!("{wrong:?}") };
    assert!(corrupt.reason.contains("commit 2, page 1: its base of commit 1"), "{corrupt}");
    assert_eq!(checked.apply(|_, _| Err("gone")), Err(ApplyError::Base("gone")));
}

#[test]
fn a_commit_follows_one_history_only() {
    let (start, _, first, _, second) = one_row_history();
    let refused = |tip: &Tip, why: &str| {
        let error = UncheckedCommit::decode(&second.bytes).unwrap().check(tip).unwrap_err();
        assert!(error.reason.contains(why), "{error}");
    };
    refused(&start, "LSN 2 after LSN 0");
    refused(&second.tip, "LSN 2 after LSN 2");
    refused(&Tip { chain: ChainHash::from_bytes([0; 16]), ..first.tip }, "follows");
    refused(&Tip { time_micros: 1_001, ..first.tip }, "time 1001 after 1001");
    refused(&Tip { pages_total: 4, ..first.tip }, "pages in total");
    refused(&Tip { page_count: 2, ..first.tip }, "patches page 3, which is new");
    refused(&Tip { page_count: 1, ..first.tip }, "grows from 1 to 3 pages with 1 new ones");
}

#[test]
fn growth_is_filled_with_zeros_and_what_is_cut_off_is_left_out() {
    let start = Tip::before_first(DATABASE);
    let grown = commit(&start, 4, &[(1, filled(1)), (3, filled(3)), (9, filled(9))]);
    let numbers: Vec<u32> = grown.pages.iter().map(|(page, _)| page.get()).collect();
    assert_eq!((numbers, grown.pages_total), (vec![1, 2, 3, 4], 4));
    assert!(grown.pages[1].1.is_zero() && grown.pages[3].1.is_zero());

    let below_lock = Tip { page_count: 262_144, ..start };
    let over_lock = commit(&below_lock, 262_146, &[(1, filled(1)), (262_145, filled(1))]);
    let numbers: Vec<u32> = over_lock.pages.iter().map(|(page, _)| page.get()).collect();
    assert_eq!(numbers, [1, 262_146]);
    let encoded = encode(&over_lock, &below_lock, &no_base);
    assert_eq!(decode_on(&encoded, &below_lock).apply(|_, _| Err(())), Ok(over_lock));
}

#[test]
fn a_page_cut_off_by_a_shrink_is_never_a_base() {
    let tip = Tip { lsn: Some(Lsn::FIRST), page_count: 2, ..Tip::before_first(DATABASE) };
    let regrown = commit(&tip, 3, &[(2, filled(2)), (3, filled(3))]);
    let base = |page: PageNo| Some(Base { lsn: Lsn::FIRST, page: filled(page.get() as u8), patches_in_a_row: 0 });
    assert_eq!(encode(&regrown, &tip, &base).patched, [true, false]);
}

#[test]
fn after_eight_patches_a_page_is_whole() {
    let tip = Tip { lsn: Some(Lsn::FIRST), page_count: 1, ..Tip::before_first(DATABASE) };
    let next = commit(&tip, 1, &[(1, filled(2))]);
    for (patches_in_a_row, patched) in [(0, true), (7, true), (8, false)] {
        let page = with_bytes(&filled(2), 5, b"x");
        let base = |_| Some(Base { lsn: Lsn::FIRST, page: page.clone(), patches_in_a_row });
        assert_eq!(encode(&next, &tip, &base).patched, [patched]);
    }
}

/// A database of so many pages, and then a commit that changes all of them: every third one in some bytes, every
/// seventh to zeros, the others whole.
fn large_history(count: u32, content: &dyn Fn(u64) -> Page) -> (Tip, Commit, impl Fn(PageNo) -> Option<Base> + use<>) {
    let tip = Tip { lsn: Some(Lsn::FIRST), page_count: count, ..Tip::before_first(DATABASE) };
    let base = move |page: PageNo| Some(Base { lsn: Lsn::FIRST, page: noise(page.get().into()), patches_in_a_row: 0 });
    let changed = (1..=count).map(|page| match page {
        page if page % 3 == 0 => (page, with_bytes(&noise(page.into()), 77, b"changed")),
        page if page % 7 == 0 => (page, Page::zeroed()),
        page => (page, content(u64::from(page) << 32)),
    });
    (tip, commit(&tip, count, &changed.collect::<Vec<_>>()), base)
}

#[test]
fn a_large_commit_that_does_not_compress_shares_its_pages_and_its_object() {
    let count = limits::LARGE_COMMIT_PAGES as u32 + 100;
    let (tip, mut large, base) = large_history(count, &noise);
    let front = Front { bytes: 5, write: &|front, commit| front.copy_from_slice(&[&commit[..4], b"!"].concat()) };
    let encoded = encode_behind(&large, &tip, &base, front);
    assert_eq!(encoded.bytes[1], CODEC_RAW);
    let object = encoded.behind_front.clone().unwrap();
    assert_eq!((&object[..4], object[4], &object[5..]), (&encoded.bytes[..4], b'!', &encoded.bytes[..]));
    assert_eq!(object[5..].as_ptr(), encoded.bytes.as_ptr(), "the same memory");
    let whole = |page: u32| !page.is_multiple_of(3) && !page.is_multiple_of(7);
    let before = large.clone();
    assert_eq!(encoded.share_pages(&mut large), (1..=count).filter(|page| whole(*page)).count());
    assert_eq!(large, before);
    let memory = encoded.bytes.as_ptr_range();
    for (page, content) in &large.pages {
        assert_eq!(memory.contains(&content.as_bytes().as_ptr()), whole(page.get()), "page {page}");
    }
    let known = |page, _| Ok::<_, ()>(base(page).unwrap().page);
    assert_eq!(decode_on(&encoded, &tip).apply(known), Ok(before));
    assert_eq!(decode_on(&encoded, &tip).tip(), encoded.tip);
}

#[test]
fn a_large_commit_that_compresses_well_is_compressed_and_one_that_is_hardly_smaller_is_not() {
    let count = limits::LARGE_COMMIT_PAGES as u32 + 1;
    // A number of bytes of each page are noise.
    let partly = |noisy: usize| move |seed| with_bytes(&filled(7), 0, &noise(seed).as_bytes()[..noisy]);
    for (noisy, codec) in [(0, CODEC_ZSTD), (1500, CODEC_ZSTD), (3000, CODEC_RAW)] {
        let (tip, mut large, base) = large_history(count, &partly(noisy));
        let encoded = encode_behind(&large, &tip, &base, Front { bytes: 80, write: &|_, _| {} });
        assert_eq!(encoded.bytes[1], codec, "{noisy}");
        let is_large = encoded.bytes.len() > walstore::limits::INLINE_COMMIT_BYTES_MAX;
        assert_eq!(encoded.behind_front.is_some(), is_large);
        assert!(codec == CODEC_RAW || encoded.share_pages(&mut large) == 0);
        let known = |page, _| Ok::<_, ()>(base(page).unwrap().page);
        assert_eq!(decode_on(&encoded, &tip).apply(known), Ok(large));
    }
    let (tip, small, base) = large_history(limits::LARGE_COMMIT_PAGES as u32, &noise);
    let encoded = encode_behind(&small, &tip, &base, Front { bytes: 80, write: &|_, _| panic!("for large ones") });
    assert!(encoded.behind_front.is_none() && encoded.bytes.len() > 1 << 20);
}

#[test]
fn time_never_stands_still_or_goes_back() {
    let tip = Tip { time_micros: 5_000, ..Tip::before_first(DATABASE) };
    let time = |now| Commit::new(&tip, now, 0, BTreeMap::new()).unwrap().time_micros;
    assert_eq!([0, 5_000, 5_001, 9_000].map(time), [5_001, 5_001, 5_001, 9_000]);
    assert!(time(u64::MAX) <= limits::TIME_MICROS_MAX);
}

#[test]
fn a_transaction_over_the_limit_is_refused_before_it_commits() {
    let start = Tip::before_first(DATABASE);
    let max = limits::COMMIT_PAGES_MAX as u32;
    assert!(Commit::new(&start, 0, max, BTreeMap::new()).is_ok());
    assert_eq!(Commit::new(&start, 0, max + 1, BTreeMap::new()), Err(CommitTooLarge { pages: u64::from(max) + 1 }));
    let largest = Tip { page_count: u32::MAX - 2, ..start };
    assert!(Commit::new(&largest, 0, u32::MAX - 1, BTreeMap::new()).is_ok());
}

/// Encodes `body` as if it were a commit's, with a right hash.
fn with_body(body: &[u8], page_count: u32) -> Bytes {
    let start = Tip::before_first(DATABASE);
    let mut bytes = encode(&commit(&start, 0, &[]), &start, &no_base).bytes[..HEADER_BYTES].to_vec();
    bytes[18..22].copy_from_slice(&page_count.to_le_bytes());
    bytes[62..66].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    let chain = chain_hash(&bytes);
    bytes[CHAIN].copy_from_slice(chain.as_bytes());
    bytes.into()
}

#[test]
fn impossible_bodies_are_refused() {
    let zero = |page: u8| [page, KIND_ZERO];
    let cases: [(&str, Vec<u8>); 8] = [
        ("do not ascend", [&[2][..], &zero(1), &zero(0)].concat()),
        ("leaves 9 pages", [&[1][..], &zero(10)].concat()),
        ("unknown kind", vec![1, 1, 9]),
        ("claims 99 entries", vec![99, 1, 1]),
        ("bytes too many", [&[1][..], &zero(1), &[0]].concat()),
        ("in the middle of a field", vec![1, 1, KIND_WHOLE, 0]),
        ("commits ago", vec![1, 1, KIND_PATCH, 0, 0, 0]),
        ("commits ago", vec![1, 1, KIND_PATCH, 1, 0, 0]),
    ];
    for (why, body) in cases {
        let error = UncheckedCommit::decode(&with_body(&body, 9)).unwrap_err();
        assert!(error.reason.contains(why), "{error} is not {why:?}");
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Whole(u8),
    Zero,
    Bytes(usize, Vec<u8>),
}

fn edits() -> impl Strategy<Value = BTreeMap<u32, Edit>> {
    let edit = prop_oneof![
        any::<u8>().prop_map(Edit::Whole),
        Just(Edit::Zero),
        (0usize..4000, proptest::collection::vec(any::<u8>(), 1..90)).prop_map(|(at, bytes)| Edit::Bytes(at, bytes)),
    ];
    proptest::collection::btree_map(1u32..=12, edit, 0..8)
}

proptest! {
    #[test]
    fn commits_round_trip(history in proptest::collection::vec((edits(), 1u32..=12), 1..8)) {
        let mut tip = Tip::before_first(DATABASE);
        let mut state: BTreeMap<PageNo, (Lsn, Page)> = BTreeMap::new();
        for (edits, page_count) in history {
            let pages = edits.into_iter().map(|(page, edit)| {
                let old = state.get(&no(page)).map_or_else(Page::zeroed, |(_, page)| page.clone());
                (no(page), match edit {
                    Edit::Whole(byte) => filled(byte),
                    Edit::Zero => Page::zeroed(),
                    Edit::Bytes(at, bytes) => with_bytes(&old, at, &bytes),
                })
            });
            let commit = Commit::new(&tip, 5, page_count, pages.collect()).unwrap();
            let base = |page| state.get(&page).map(|(lsn, page): &(Lsn, Page)| Base {
                lsn: *lsn, page: page.clone(), patches_in_a_row: 0,
            });
            let encoded = encode(&commit, &tip, &base);
            let checked = decode_on(&encoded, &tip);
            prop_assert_eq!(checked.tip(), encoded.tip);
            let decoded = checked.apply(|page, lsn| match &state[&page] {
                (known, page) if *known == lsn => Ok(page.clone()),
                _ => Err(lsn),
            });
            prop_assert_eq!(&decoded, &Ok(commit.clone()));
            state.retain(|page, _| page.get() <= page_count);
            state.extend(commit.pages.into_iter().map(|(page, content)| (page, (commit.lsn, content))));
            tip = encoded.tip;
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed(at: prop::sample::Index, bit in 0..8) {
        let (_, _, _, _, encoded) = one_row_history();
        let mut bytes = encoded.bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(UncheckedCommit::decode(&bytes.into()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        body in proptest::collection::vec(0u8..8, 0..60),
        page_count in 0u32..9,
    ) {
        let _ = UncheckedCommit::decode(&bytes.into());
        if let Ok(commit) = UncheckedCommit::decode(&with_body(&body, page_count))
            && let Ok(commit) = commit.check(&Tip::before_first(DATABASE))
        {
            let _ = commit.apply(|_, _| Ok::<_, ()>(filled(1)));
        }
    }
}

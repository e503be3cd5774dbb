use bytes::Bytes;
use proptest::prelude::*;
use walstore::id::{DatabaseId, Lsn};

use super::history::History;
use super::*;
use crate::id::PackId;
use crate::page::{PAGE_BYTES, Page, PageNo, SegmentNo};

const ID: PackId = PackId { owner: DatabaseId::from_bytes([5; 16]), epoch: 2, seq: 3, nonce: 4 };

fn no(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

fn noise(seed: u64) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    Page::copy_of(&bytes)
}

/// Segments 0 and 2 whole (the latter is short), pages 35, 36 and 60 in the delta, two commits of history.
fn sample() -> Pack {
    let mut writer = PackWriter::new(ID, Lsn::new(9).unwrap(), 70);
    writer.add_segment(SegmentNo::new(0).unwrap(), (0..32).map(|_| Page::zeroed()).collect());
    writer.add_segment(SegmentNo::new(2).unwrap(), (65..=70).map(noise).collect());
    for page in [60, 35, 36] {
        writer.add_page(no(page), noise(page.into()));
    }
    writer.set_history(History { first: Lsn::new(8).unwrap(), commits: vec!["eight".into(), "nine".into()] });
    writer.finish().unwrap()
}

fn read(pack: &Pack, index: &FrameIndex, page: u32) -> Page {
    let (frame, place) = index.find(no(page)).unwrap();
    let stored = pack.bytes.slice(frame.offset as usize..(frame.offset + frame.bytes) as usize);
    Frame::decode(&stored, &frame).unwrap().page(place).unwrap()
}

#[test]
fn golden_pack() {
    let pack = sample();
    let hash = blake3::hash(&pack.bytes).to_hex()[..16].to_owned();
    let expected = include_str!("../../golden/pack.b3");
    assert_eq!(format!("{hash}\n"), expected, "the format, or what zstd makes of zeros, has changed");
}

/// The bytes of an earlier build stay readable, whatever later ones write.
#[test]
fn the_golden_pack_file_is_read() {
    let hex = include_str!("../../golden/small_pack.hex").trim();
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let bytes = Bytes::from(bytes);
    let contents = read_pack(&bytes, &ID).unwrap();
    assert_eq!((contents.footer.lsn.get(), contents.footer.page_count), (9, 40));
    let (frame, place) = contents.segments.find(no(2)).unwrap();
    let stored = bytes.slice(frame.range().start as usize..frame.range().end as usize);
    assert_eq!(Frame::decode(&stored, &frame).unwrap().page(place).unwrap(), Page::copy_of(&[2; PAGE_BYTES]));
    let (frame, place) = contents.delta.find(no(40)).unwrap();
    let stored = bytes.slice(frame.range().start as usize..frame.range().end as usize);
    assert_eq!(Frame::decode(&stored, &frame).unwrap().page(place).unwrap(), Page::copy_of(&[40; PAGE_BYTES]));
    assert_eq!(contents.history.unwrap().commits, ["nine"]);
}

#[test]
fn single_frames_are_read_by_their_references() {
    let pack = sample();
    let delta = pack.delta.as_ref().unwrap();
    for page in [35, 36, 60] {
        assert_eq!(read(&pack, &delta.index, page), noise(page.into()));
    }
    assert_eq!(read(&pack, &pack.segments, 17), Page::zeroed());
    assert_eq!(read(&pack, &pack.segments, 70), noise(70));
    assert_eq!((delta.index.find(no(34)), delta.index.find(no(1)), pack.segments.find(no(71))), (None, None, None));
    let frames: Vec<u32> = delta.index.entries().iter().map(|entry| entry.pages.count()).collect();
    assert_eq!(frames, [3], "the touched pages of a segment share a frame");
    assert_eq!((delta.index.page_count(), delta.index.frames_bytes()), (3, 3 * PAGE_BYTES as u64 + 2));
}

#[test]
fn a_pack_is_complete_in_itself() {
    let pack = sample();
    let contents = read_pack(&pack.bytes, &ID).unwrap();
    assert_eq!((&contents.segments, &contents.delta), (&pack.segments, &pack.delta.as_ref().unwrap().index));
    assert_eq!(contents.history.unwrap().commits, ["eight", "nine"]);
    let tail = pack.bytes.slice(pack.bytes.len() - FOOTER_BYTES..);
    assert_eq!(Footer::decode(&tail), Ok(contents.footer));
    let other = read_pack(&pack.bytes, &PackId { nonce: 5, ..ID }).unwrap_err();
    assert!(other.reason.contains("holds pack"), "{other}");
}

#[test]
fn a_frame_with_a_wrong_byte_or_length_is_refused() {
    let pack = sample();
    let frame = pack.segments.entries()[1].frame;
    let stored = pack.bytes.slice(frame.range().start as usize..frame.range().end as usize);
    assert!(Frame::decode(&stored.slice(1..), &frame).is_err());
    let mut damaged = stored.to_vec();
    damaged[100] ^= 1;
    let error = Frame::decode(&damaged, &frame).unwrap_err();
    assert!(error.reason.contains("checksum"), "{error}");
    let decoded = Frame::decode(&stored, &frame).unwrap();
    assert!(decoded.page(5).is_ok() && decoded.page(6).is_err());
}

#[test]
fn hostile_frames_with_a_right_checksum_are_refused() {
    let bomb = zstd::bulk::compress(&[0; 33 * PAGE_BYTES], 1).unwrap();
    let cases = [vec![], vec![0], vec![0, 1], vec![0, 0], vec![0, 33], vec![9, 1, 0], [&[1, 32][..], &bomb].concat()];
    for stored in cases {
        let frame = FrameRef { offset: 0, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
        assert!(Frame::decode(&stored, &frame).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn packs_round_trip(pages in proptest::collection::btree_map(1u32..200, any::<u8>(), 1..60), whole in 0u32..4) {
        let mut writer = PackWriter::new(ID, Lsn::FIRST, 200);
        let whole = SegmentNo::new(whole).unwrap();
        writer.add_segment(whole, (0..32).map(|byte| Page::copy_of(&[byte; PAGE_BYTES])).collect());
        let delta = pages.iter().filter(|(page, _)| no(**page).segment() != whole);
        delta.clone().for_each(|(page, byte)| writer.add_page(no(*page), Page::copy_of(&[*byte; PAGE_BYTES])));
        let pack = writer.finish().unwrap();
        let contents = read_pack(&pack.bytes, &ID).unwrap();
        prop_assert_eq!(contents.delta.page_count() as usize, delta.clone().count());
        for (page, byte) in delta {
            prop_assert_eq!(read(&pack, &contents.delta, *page).as_bytes()[9], *byte);
        }
        for position in 0..32 {
            let page = whole.page(position).unwrap().get();
            prop_assert_eq!(read(&pack, &contents.segments, page).as_bytes()[9], position);
        }
    }

    #[test]
    fn indexes_round_trip_or_are_refused(bytes in proptest::collection::vec(0u8..5, 0..120)) {
        let bytes = [&[1][..], &bytes].concat();
        if let Ok(index) = FrameIndex::decode(&bytes) {
            prop_assert_eq!(FrameIndex::decode(&index.encode()), Ok(index));
        }
    }

    #[test]
    fn damaged_packs_never_panic(at: prop::sample::Index, cut: prop::sample::Index, byte: u8) {
        let pack = sample().bytes;
        let mut body = pack[walstore::envelope::HEADER_BYTES..].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(cut.index(body.len() * 4).max(1));
        let object = walstore::envelope::seal(walstore::envelope::Kind::Pack, VERSION, &body);
        prop_assert!(read_pack(&object, &ID).is_err() || object == pack);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Footer::decode(&bytes);
        let _ = FrameIndex::decode(&bytes);
        let _ = History::decode(&bytes.clone().into());
        let frame = FrameRef { offset: 0, bytes: bytes.len() as u32, crc: crc32c::crc32c(&bytes) };
        let _ = Frame::decode(&bytes, &frame);
    }
}

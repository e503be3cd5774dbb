//! The envelope around every object in the bucket, and the bounds-checked reader for what is inside.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | magic `SHOL` |
//! | 4 | object kind ([`Kind`]) |
//! | 5 | format version of this kind, from 1 |
//! | 6 | codec of the body: 0 as is, 1 zstd |
//! | 7 | key id: 0 not encrypted; others are refused until encryption exists |
//! | 8..12 | length of the body as stored, `u32` little-endian |
//! | 12..16 | CRC-32C over bytes 0..12 and the stored body |
//! | 16.. | the body |
//!
//! All integers in Shoal's formats are little-endian.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use zstd::bulk::Decompressor;

use crate::limits;

/// Length of the header before the body.
pub const HEADER_BYTES: usize = 16;
const MAGIC: [u8; 4] = *b"SHOL";
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const KEY_ID_NONE: u8 = 0;

/// What an object is. The values are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Cluster = 1,
    Incarnation = 2,
    LiveMarker = 3,
    Fragment = 4,
    Tombstone = 5,
    SideObject = 6,
    Bundle = 7,
    NameRecord = 8,
    Head = 9,
    Pack = 10,
    PageMap = 11,
    Due = 12,
    Sweep = 13,
    Base = 14,
    History = 15,
    Pins = 16,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [
            Cluster, Incarnation, LiveMarker, Fragment, Tombstone, SideObject, Bundle, NameRecord, Head, Pack,
            PageMap, Due, Sweep, Base, History, Pins,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Bytes that are not what their key promises. The caller adds the key ([`Corrupt::at`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt object {key}: {reason}")]
pub struct Corrupt {
    pub key: String,
    pub reason: String,
}

impl Corrupt {
    pub fn new(reason: impl Into<String>) -> Self {
        Self { key: "(unnamed)".into(), reason: reason.into() }
    }

    /// Names the damaged object.
    pub fn at(mut self, key: impl std::fmt::Display) -> Self {
        self.key = key.to_string();
        self
    }
}

/// Wraps `body` as it is.
pub fn seal(kind: Kind, version: u8, body: &[u8]) -> Bytes {
    wrap(kind, version, CODEC_RAW, body)
}

/// What stands before a body that goes in as it is. The body may be in parts.
pub fn header(kind: Kind, version: u8, body: &[&[u8]]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let length = body.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).expect("BUG: object over 4 GiB");
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&[kind as u8, version, CODEC_RAW, KEY_ID_NONE]);
    header[8..12].copy_from_slice(&length.to_le_bytes());
    let start = crc32c::crc32c(&header[..12]);
    let checksum = body.iter().fold(start, |checksum, part| crc32c::crc32c_append(checksum, part));
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Wraps the body that stands in `object` behind [`HEADER_BYTES`] that are still to be written, as it is: a large one
/// is not copied.
pub fn seal_in_place(kind: Kind, version: u8, mut object: Vec<u8>) -> Bytes {
    let (front, body) = object.split_at_mut(HEADER_BYTES);
    front.copy_from_slice(&header(kind, version, &[body]));
    object.into()
}

/// Wraps `body`, compressed where that makes it smaller.
pub fn seal_compressed(kind: Kind, version: u8, body: &[u8]) -> Bytes {
    let packed = zstd::bulk::compress(body, zstd::DEFAULT_COMPRESSION_LEVEL);
    match packed {
        Ok(packed) if packed.len() + 4 < body.len() => {
            let mut stored = Vec::with_capacity(packed.len() + 4);
            let raw_bytes = u32::try_from(body.len()).expect("BUG: object over 4 GiB");
            stored.extend_from_slice(&raw_bytes.to_le_bytes());
            stored.extend_from_slice(&packed);
            wrap(kind, version, CODEC_ZSTD, &stored)
        }
        _ => wrap(kind, version, CODEC_RAW, body),
    }
}

fn wrap(kind: Kind, version: u8, codec: u8, stored: &[u8]) -> Bytes {
    let mut object = Growing::new(kind, version, codec, stored.len());
    object.add(stored);
    object.finish()
}

/// An object that is put together piece by piece, for bodies that are too long to be copied and summed at one go.
pub struct Growing {
    object: Vec<u8>,
    checksum: u32,
    stored_bytes: usize,
}

impl Growing {
    /// An object whose body goes in as it is.
    pub fn raw(kind: Kind, version: u8, body_bytes: usize) -> Self {
        Self::new(kind, version, CODEC_RAW, body_bytes)
    }

    fn new(kind: Kind, version: u8, codec: u8, stored_bytes: usize) -> Self {
        let mut object = Vec::with_capacity(HEADER_BYTES + stored_bytes);
        object.extend_from_slice(&MAGIC);
        object.extend_from_slice(&[kind as u8, version, codec, KEY_ID_NONE]);
        let length = u32::try_from(stored_bytes).expect("BUG: object over 4 GiB");
        object.extend_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&object);
        // Until it is known.
        object.extend_from_slice(&[0; 4]);
        Self { object, checksum, stored_bytes }
    }

    /// Appends to the body.
    pub fn add(&mut self, piece: &[u8]) {
        self.checksum = crc32c::crc32c_append(self.checksum, piece);
        self.object.extend_from_slice(piece);
    }

    /// # Panics
    /// If the body is not as long as was said.
    pub fn finish(mut self) -> Bytes {
        assert_eq!(self.object.len(), HEADER_BYTES + self.stored_bytes, "BUG: a body of another length");
        self.object[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&self.checksum.to_le_bytes());
        self.object.into()
    }
}

/// A checked object.
#[derive(Clone, Debug)]
pub struct Opened {
    pub kind: Kind,
    pub version: u8,
    pub body: Bytes,
}

/// The kind that an object's first bytes claim, unchecked but for the magic.
pub fn kind_of(start: &[u8]) -> Result<Kind, Corrupt> {
    match start {
        [b'S', b'H', b'O', b'L', kind, ..] => {
            Kind::from_byte(*kind).ok_or_else(|| Corrupt::new(format!("unknown kind {kind}")))
        }
        _ => Err(Corrupt::new("not a Shoal object (bad magic)")),
    }
}

/// How long the object is whose first [`HEADER_BYTES`] these are, unchecked but for the magic.
pub fn claimed_bytes(start: &[u8]) -> Result<u64, Corrupt> {
    kind_of(start)?;
    let length = start.get(8..12).and_then(|length| length.first_chunk::<4>());
    let length = length.ok_or_else(|| Corrupt::new("too short for an object"))?;
    Ok(HEADER_BYTES as u64 + u64::from(u32::from_le_bytes(*length)))
}

/// Checks magic, length, checksum and codec. `body_bytes_max` bounds what a hostile length may allocate.
pub fn open(object: &Bytes, body_bytes_max: usize) -> Result<Opened, Corrupt> {
    let header: &[u8; HEADER_BYTES] = object
        .first_chunk()
        .ok_or_else(|| Corrupt::new(format!("{} bytes are too short for an object", object.len())))?;
    if header[..4] != MAGIC {
        return Err(Corrupt::new("not a Shoal object (bad magic)"));
    }
    let kind = Kind::from_byte(header[4]).ok_or_else(|| Corrupt::new(format!("unknown kind {}", header[4])))?;
    if header[7] != KEY_ID_NONE {
        return Err(Corrupt::new(format!("encrypted with key {}, which this version cannot read", header[7])));
    }
    let stored = object.slice(HEADER_BYTES..);
    let stored_bytes = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if u32::try_from(stored.len()) != Ok(stored_bytes) {
        return Err(Corrupt::new(format!("body of {} bytes, {stored_bytes} expected", stored.len())));
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &stored);
    if checksum.to_le_bytes() != header[12..16] {
        return Err(Corrupt::new("checksum mismatch"));
    }
    let body = match header[6] {
        CODEC_RAW => stored,
        CODEC_ZSTD => decompress(&stored, body_bytes_max)?,
        codec => return Err(Corrupt::new(format!("unknown codec {codec}"))),
    };
    Ok(Opened { kind, version: header[5], body })
}

/// Like [`open`], for a caller who knows what the key must hold.
pub fn open_as(object: &Bytes, kind: Kind, version: u8, body_bytes_max: usize) -> Result<Bytes, Corrupt> {
    let opened = open(object, body_bytes_max)?;
    if opened.kind != kind {
        return Err(Corrupt::new(format!("holds a {:?}, not a {kind:?}", opened.kind)));
    }
    if opened.version != version {
        return Err(Corrupt::new(format!(
            "{kind:?} format version {}; this build reads {version}",
            opened.version
        )));
    }
    Ok(opened.body)
}

/// Decompresses `length (u32) || zstd frame`, refusing lengths over `bytes_max`.
fn decompress(stored: &[u8], bytes_max: usize) -> Result<Bytes, Corrupt> {
    let (length, frame) =
        stored.split_first_chunk::<4>().ok_or_else(|| Corrupt::new("compressed body without a length"))?;
    decompress_exact(frame, u32::from_le_bytes(*length) as usize, bytes_max).map(Bytes::from)
}

/// Those that nobody uses at the moment. To make one costs a tenth of what decompressing a segment does.
static DECOMPRESSORS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

fn take_decompressor() -> Decompressor<'static> {
    let idle = DECOMPRESSORS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    idle.unwrap_or_else(|| Decompressor::new().expect("BUG: no dictionary can be wrong"))
}

fn put_back(decompressor: Decompressor<'static>) {
    let mut idle = DECOMPRESSORS.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.len() < limits::DECOMPRESSORS_IDLE_MAX {
        idle.push(decompressor);
    }
}

/// Decompresses a frame that must yield exactly `length` bytes.
pub fn decompress_exact(frame: &[u8], length: usize, bytes_max: usize) -> Result<Vec<u8>, Corrupt> {
    if length > bytes_max {
        return Err(Corrupt::new(format!("claims {length} bytes, over the limit of {bytes_max}")));
    }
    let mut decompressor = take_decompressor();
    let raw = decompressor.decompress(frame, length);
    put_back(decompressor);
    let raw = raw.map_err(|error| Corrupt::new(format!("does not decompress: {error}")))?;
    if raw.len() != length {
        return Err(Corrupt::new(format!("decompresses to {} bytes, {length} expected", raw.len())));
    }
    Ok(raw)
}

/// Appends little-endian fields.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    /// A `u32` count.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("BUG: more than 2^32 entries"));
    }
    /// A `u32` length and the bytes.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads little-endian fields and never past the end.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], Corrupt> {
        if count > self.0.len() {
            return Err(Corrupt::new("ends in the middle of a field"));
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let taken = self.raw(N)?;
        Ok(*taken.first_chunk().expect("BUG: raw(N) gives N bytes"))
    }

    pub fn u8(&mut self) -> Result<u8, Corrupt> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, Corrupt> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32, Corrupt> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64, Corrupt> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of entries of at least `entry_bytes_min` each, so that a hostile count cannot allocate
    /// more than the input justifies.
    pub fn count(&mut self, entry_bytes_min: usize) -> Result<usize, Corrupt> {
        let count = self.u32()? as usize;
        if count.saturating_mul(entry_bytes_min.max(1)) > self.0.len() {
            return Err(Corrupt::new(format!("claims {count} entries, more than fit")));
        }
        Ok(count)
    }

    pub fn blob(&mut self) -> Result<&'a [u8], Corrupt> {
        let count = self.count(1)?;
        self.raw(count)
    }

    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    /// Every byte must have been read.
    pub fn end(self) -> Result<(), Corrupt> {
        if self.0.is_empty() { Ok(()) } else { Err(Corrupt::new(format!("{} bytes too many", self.0.len()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_envelope() {
        let object = seal(Kind::Tombstone, 1, b"abc");
        let hex: String = object.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("53484f4c0501000003000000{}616263", &hex[24..32]));
        assert_eq!(open_as(&object, Kind::Tombstone, 1, 10).unwrap(), "abc");
        assert_eq!(claimed_bytes(&object[..HEADER_BYTES]), Ok(object.len() as u64));
        assert!(claimed_bytes(&object[..11]).is_err() && claimed_bytes(b"SHOX").is_err());
    }

    proptest! {
        #[test]
        fn every_body_round_trips(body in proptest::collection::vec(0u8..4, 0..2000)) {
            let in_place = seal_in_place(Kind::Head, 1, [&[9; HEADER_BYTES], &body[..]].concat());
            prop_assert_eq!(&in_place, &seal(Kind::Head, 1, &body));
            let (start, end) = body.split_at(body.len() / 3);
            prop_assert_eq!(&header(Kind::Head, 1, &[start, end]), &in_place[..HEADER_BYTES]);
            for object in [in_place, seal_compressed(Kind::Head, 1, &body)] {
                prop_assert_eq!(&open_as(&object, Kind::Head, 1, 4000).unwrap()[..], &body[..]);
            }
        }

        #[test]
        fn every_flipped_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut object = seal_compressed(Kind::Pack, 1, &body).to_vec();
            let at = flip.index(object.len());
            object[at] ^= 1u8 << bit;
            prop_assert!(open_as(&object.into(), Kind::Pack, 1, 1000).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = open(&bytes.into(), 1000);
        }
    }

    #[test]
    fn a_hostile_length_is_refused_before_it_allocates() {
        let object = seal_compressed(Kind::Head, 1, &[7; 100_000]);
        let error = open_as(&object, Kind::Head, 1, 1000).unwrap_err();
        assert!(error.reason.contains("over the limit"), "{error}");
    }
}

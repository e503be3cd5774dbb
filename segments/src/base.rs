//! A **stored base**: a folded state of a database as an object of its own, which never changes.
//!
//! What a head says is folded ends with the next fold. Where such a state has to last, because a fork begins there or
//! history is replayed from it, it is stored beside the packs that it refers to.
//!
//! Key: [`crate::keys::page_map`]. Body, inside the [envelope](walstore::envelope) (kind `Base`), compressed where that
//! helps:
//!
//! | bytes | what |
//! |---|---|
//! | 36 | the base's own id |
//! | 44 | the [tip](crate::tip) |
//! | 4 + n | root of the page map ([`crate::map`]) |
//! | 1 + … | optional: length and bytes of the [image](crate::image) |
//!
//! A [`BaseRef`] is id (36), length (4) and CRC-32C (4) of the object.

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};

use crate::id::MapChunkId;
use crate::image::Image;
use crate::limits;
use crate::map::PageMap;
use crate::tip::Tip;

const VERSION: u8 = 1;

/// Refers to the object of a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseRef {
    pub id: MapChunkId,
    /// Length of the object.
    pub bytes: u32,
    /// CRC-32C of the object.
    pub crc: u32,
}

impl BaseRef {
    pub const ENCODED_BYTES: usize = 44;

    pub fn encode(&self, out: &mut Writer) {
        self.id.encode(out);
        out.u32(self.bytes);
        out.u32(self.crc);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { id: MapChunkId::decode(reader)?, bytes: reader.u32()?, crc: reader.u32()? })
    }

    /// For the head of a database that begins with this base.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Writer::new();
        self.encode(&mut out);
        out.finish().into()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        let reference = Self::decode(&mut reader)?;
        reader.end()?;
        Ok(reference)
    }
}

/// The state after some commit, and where its pages are. Root and image are as a head has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBase {
    pub tip: Tip,
    pub root: Bytes,
    pub image: Option<Bytes>,
}

/// What a base consists of, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseParts {
    pub tip: Tip,
    pub map: PageMap,
    pub image: Option<Image>,
}

impl StoredBase {
    /// The base as an object, to be put under the key of `id`.
    pub fn seal(&self, id: MapChunkId) -> (BaseRef, Bytes) {
        let mut body = Writer::new();
        id.encode(&mut body);
        self.tip.encode(&mut body);
        body.blob(&self.root);
        match &self.image {
            None => body.u8(0),
            Some(image) => {
                body.u8(1);
                body.blob(image);
            }
        }
        let object = envelope::seal_compressed(Kind::Base, VERSION, &body.finish());
        let bytes = u32::try_from(object.len()).expect("BUG: a base over 4 GiB");
        (BaseRef { id, bytes, crc: crc32c::crc32c(&object) }, object)
    }

    /// Checks and decodes the object that `reference` names.
    pub fn open(object: &Bytes, reference: &BaseRef) -> Result<Self, Corrupt> {
        if object.len() != reference.bytes as usize || crc32c::crc32c(object) != reference.crc {
            return Err(Corrupt::new("not the base that is referred to"));
        }
        let body = envelope::open_as(object, Kind::Base, VERSION, limits::BASE_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let id = MapChunkId::decode(&mut reader)?;
        if id != reference.id {
            return Err(Corrupt::new(format!("holds base {id}")));
        }
        let tip = Tip::decode(&mut reader)?;
        let root = body.slice_ref(reader.blob()?);
        let image = match reader.u8()? {
            0 => None,
            1 => Some(body.slice_ref(reader.blob()?)),
            flag => return Err(Corrupt::new(format!("{flag} where a base says whether it has an image"))),
        };
        reader.end()?;
        let base = Self { tip, root, image };
        base.parts()?;
        Ok(base)
    }

    /// Decodes and checks its parts: they are of one state.
    pub fn parts(&self) -> Result<BaseParts, Corrupt> {
        let Some(lsn) = self.tip.lsn else { return Err(Corrupt::new("a base before the first commit")) };
        let map = PageMap::decode(&self.root)?;
        if map.lsn() != self.tip.lsn || map.page_count() != self.tip.page_count {
            return Err(Corrupt::new(format!("a page map as of {:?} in a base as of {lsn}", map.lsn())));
        }
        let image = self.image.as_ref().map(Image::decode).transpose()?;
        Ok(BaseParts { tip: self.tip, map, image })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use walstore::id::{DatabaseId, Lsn};

    use super::*;
    use crate::id::PackId;
    use crate::image::WholeImage;
    use crate::pack::PackWriter;
    use crate::page::{PAGE_BYTES, Page, SegmentNo};
    use crate::tip::ChainHash;

    const OWNER: DatabaseId = DatabaseId::from_bytes([3; 16]);
    const ID: MapChunkId = MapChunkId { owner: OWNER, epoch: 5, seq: 6, nonce: 7 };

    fn sample() -> StoredBase {
        let lsn = Lsn::new(9).unwrap();
        let mut writer = PackWriter::new(PackId { owner: OWNER, epoch: 5, seq: 6, nonce: 8 }, lsn, 3);
        writer.add_segment(SegmentNo::new(0).unwrap(), (1..4).map(|byte| Page::copy_of(&[byte; PAGE_BYTES])).collect());
        let pack = writer.finish().unwrap();
        let map = PageMap::empty().with_fold(lsn, 3, Some(&pack), &Default::default());
        let image = Image::Whole(WholeImage::of_pack(&pack, limits::IMAGE_BYTES_MAX).unwrap());
        let chain = ChainHash::from_bytes([4; 16]);
        let tip = Tip { lsn: Some(lsn), time_micros: 77, page_count: 3, pages_total: 12, chain };
        let root = map.store(&mut || unreachable!("BUG: the map is small")).root;
        StoredBase { tip, root, image: Some(image.encode()) }
    }

    #[test]
    fn golden_base() {
        let (reference, object) = sample().seal(ID);
        assert_eq!(StoredBase::open(&object, &reference), Ok(sample()));
        let body = envelope::open_as(&object, Kind::Base, VERSION, limits::BASE_BYTES_MAX).unwrap();
        let [body, reference] = [&body[..], &reference.to_bytes()[..40]].map(blake3::hash);
        let hashes = [body, reference].map(|hash| hash.to_hex()[..16].to_owned()).join("\n");
        assert_eq!(hashes, include_str!("../golden/base.b3").trim());
    }

    #[test]
    fn parts_of_different_states_and_objects_of_others_are_refused() {
        let sample = sample();
        let (reference, object) = sample.seal(ID);
        let other = BaseRef { id: MapChunkId { nonce: 9, ..ID }, ..reference };
        assert!(StoredBase::open(&object, &other).unwrap_err().reason.contains("holds base"));
        for tip in [
            Tip { page_count: 4, ..sample.tip },
            Tip { lsn: Lsn::new(8), ..sample.tip },
            Tip { lsn: None, ..sample.tip },
        ] {
            let (reference, object) = StoredBase { tip, ..sample.clone() }.seal(ID);
            assert!(StoredBase::open(&object, &reference).is_err(), "{tip:?}");
        }
        assert_eq!(BaseRef::from_bytes(&reference.to_bytes()), Ok(reference));
        assert!(BaseRef::from_bytes(&reference.to_bytes()[1..]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            // With a right checksum, as whoever can write to the bucket would make it.
            let (reference, object) = sample().seal(ID);
            let body = envelope::open_as(&object, Kind::Base, VERSION, limits::BASE_BYTES_MAX).unwrap();
            let mut body = body.to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            body.truncate(cut.index(body.len() * 4));
            let object = envelope::seal(Kind::Base, VERSION, &body);
            let forged = BaseRef { bytes: object.len() as u32, crc: crc32c::crc32c(&object), ..reference };
            if let Ok(base) = StoredBase::open(&object, &forged) {
                prop_assert!(base.parts().is_ok());
            }
        }
    }
}

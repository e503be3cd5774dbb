//! Batons: the sealed reference to a stream that a client carries from one HTTP request to the
//! next.
//!
//! Text: base64url without padding of these 50 bytes (all integers big-endian):
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 8 | stream id |
//! | 8 | 8 | sequence: raised at each use, so that a baton works once |
//! | 16 | 2 | the core that runs the stream |
//! | 18 | 32 | MAC over a label, the database's name and the 18 bytes before |
//!
//! The MAC is keyed BLAKE3 with a key that the process draws at its start and never shows. So a
//! baton can't be guessed or altered, dies with the process, as the stream does, and is worth
//! nothing with another database's URL: whoever may use database `a` can't reach a stream of `b`
//! by sending b's baton to a.
//!
//! The id and the core are readable to the client. They tell nothing but how many streams there
//! were, if ids are counted; draw them at random if that matters.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::limits::BATON_TEXT_BYTES_MAX;

const CLAIM_BYTES: usize = 18;
const MAC_BYTES: usize = blake3::OUT_LEN;
const BATON_BYTES: usize = CLAIM_BYTES + MAC_BYTES;

/// The length of a baton's text.
pub const BATON_TEXT_BYTES: usize = (BATON_BYTES * 4).div_ceil(3);

const _: () = assert!(BATON_TEXT_BYTES <= BATON_TEXT_BYTES_MAX, "our own batons must pass");

/// Keeps this use of the key apart from any other.
const LABEL: &[u8] = b"shoal baton 1";

/// What a baton says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baton {
    pub stream_id: u64,
    pub sequence: u64,
    pub core: u16,
}

/// The text is not a baton of this process for this database. Which of the two, or whether it was
/// altered, is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Received an invalid baton")]
pub struct BatonError;

impl From<BatonError> for super::error::ProtocolError {
    fn from(BatonError: BatonError) -> Self {
        super::error::ProtocolError::BatonInvalid
    }
}

/// The key of this process.
pub struct BatonKey([u8; blake3::KEY_LEN]);

impl BatonKey {
    /// `random` must come from a cryptographic source of randomness.
    pub fn new(random: [u8; 32]) -> BatonKey {
        BatonKey(random)
    }

    pub fn seal(&self, baton: &Baton, database_name: &str) -> String {
        let claim = encode_claim(baton);
        let mut bytes = [0; BATON_BYTES];
        bytes[..CLAIM_BYTES].copy_from_slice(&claim);
        bytes[CLAIM_BYTES..].copy_from_slice(self.mac(&claim, database_name).as_bytes());
        BASE64.encode(bytes)
    }

    pub fn open(&self, text: &str, database_name: &str) -> Result<Baton, BatonError> {
        if text.len() > BATON_TEXT_BYTES_MAX {
            return Err(BatonError);
        }
        let bytes = BASE64.decode(text).map_err(|_| BatonError)?;
        let bytes: [u8; BATON_BYTES] = bytes.try_into().map_err(|_| BatonError)?;
        let (claim, mac) = bytes.split_first_chunk::<CLAIM_BYTES>().ok_or(BatonError)?;
        let mac = blake3::Hash::from_slice(mac).map_err(|_| BatonError)?;
        // `blake3::Hash` compares in constant time, so the MAC can't be found byte by byte.
        if mac != self.mac(claim, database_name) {
            return Err(BatonError);
        }
        Ok(decode_claim(claim))
    }

    fn mac(&self, claim: &[u8; CLAIM_BYTES], database_name: &str) -> blake3::Hash {
        let mut input = Vec::with_capacity(LABEL.len() + 8 + database_name.len() + CLAIM_BYTES);
        input.extend_from_slice(LABEL);
        // With its length first, so that no name's end can pass for a claim's beginning.
        input.extend_from_slice(&(database_name.len() as u64).to_be_bytes());
        input.extend_from_slice(database_name.as_bytes());
        input.extend_from_slice(claim);
        blake3::keyed_hash(&self.0, &input)
    }
}

impl fmt::Debug for BatonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatonKey(secret)")
    }
}

fn encode_claim(baton: &Baton) -> [u8; CLAIM_BYTES] {
    let mut claim = [0; CLAIM_BYTES];
    claim[0..8].copy_from_slice(&baton.stream_id.to_be_bytes());
    claim[8..16].copy_from_slice(&baton.sequence.to_be_bytes());
    claim[16..18].copy_from_slice(&baton.core.to_be_bytes());
    claim
}

fn decode_claim(claim: &[u8; CLAIM_BYTES]) -> Baton {
    let number = |at: usize| {
        let bytes: [u8; 8] = claim[at..at + 8].try_into().expect("BUG: a slice of 8 bytes has 8");
        u64::from_be_bytes(bytes)
    };
    Baton { stream_id: number(0), sequence: number(8), core: u16::from_be_bytes([claim[16], claim[17]]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BATON: Baton = Baton { stream_id: 7, sequence: u64::MAX - 1, core: 3 };

    fn key() -> BatonKey {
        BatonKey::new([42; 32])
    }

    #[test]
    fn a_sealed_baton_opens_to_the_same() {
        let text = key().seal(&BATON, "db1");
        assert_eq!(text.len(), BATON_TEXT_BYTES);
        assert_eq!(key().open(&text, "db1"), Ok(BATON));
    }

    #[test]
    fn another_database_or_another_process_cannot_open_it() {
        let text = key().seal(&BATON, "db1");
        assert_eq!(key().open(&text, "db2"), Err(BatonError));
        assert_eq!(key().open(&text, ""), Err(BatonError));
        assert_eq!(BatonKey::new([43; 32]).open(&text, "db1"), Err(BatonError));
    }

    #[test]
    fn changing_any_character_breaks_it() {
        let text = key().seal(&BATON, "db1");
        for index in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(key().open(&altered, "db1"), Err(BatonError), "character {index}");
        }
    }

    #[test]
    fn what_is_not_a_baton_is_refused() {
        let text = key().seal(&BATON, "db1");
        let long = "A".repeat(1 << 20);
        for not_a_baton in [
            "",
            "A",
            "====",
            "null",
            "\0",
            "é",
            &text[..text.len() - 1],
            &format!("{text}="),
            &format!("{text}AA"),
            &long,
        ] {
            assert_eq!(key().open(not_a_baton, "db1"), Err(BatonError));
        }
    }

    #[test]
    fn the_key_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", key()), "BatonKey(secret)");
    }

    proptest! {
        #[test]
        fn every_baton_survives_the_trip(stream_id: u64, sequence: u64, core: u16, name in "[a-z]{1,63}") {
            let baton = Baton { stream_id, sequence, core };
            prop_assert_eq!(key().open(&key().seal(&baton, &name), &name), Ok(baton));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            prop_assert_eq!(key().open(&text, "db1"), Err(BatonError));
        }
    }
}

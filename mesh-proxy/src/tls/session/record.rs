//! Records of TLS 1.3 in one direction (RFC 8446 section 5), sealed and opened where they lie.

use std::io;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType,
    crypto::cipher::{Iv, Nonce, make_tls13_aad},
};

/// Bytes before what is sealed: type, version, length.
pub(super) const HEADER: usize = 5;
/// Most bytes that one record carries.
pub(crate) const MOST_PLAIN: usize = 1 << 14;
/// Most bytes of a record that a peer may send, header included: it may pad.
pub(crate) const MOST: usize = HEADER + MOST_PLAIN + 256;
/// What a record of ours has besides what it carries: header, type, tag.
pub(crate) const OVERHEAD: usize = HEADER + 1 + TAG;
const TAG: usize = 16;
/// Sequence numbers end here; keys are changed long before.
const LAST: u64 = u64::MAX - 1;

/// What is wrong with what a peer sent, or cannot be done for it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// It was not sealed by the peer.
    #[error("a TLS record does not authenticate")]
    Mac,
    /// It is longer than allowed.
    #[error("a TLS record is too long")]
    Overflow,
    /// Nothing like it may come now.
    #[error("a TLS record or message came that has no place here")]
    Unexpected,
    /// It has no form.
    #[error("a TLS message cannot be read")]
    Decode,
    /// The peer's last word.
    #[error("the peer ended TLS with the alert {0:?}")]
    Alert(AlertDescription),
    /// The library refused: a key could not be made, or none are left.
    #[error("TLS keys cannot be used or changed")]
    Keys,
}

impl RecordError {
    /// What the peer is told (RFC 8446 section 6.2). None: it has said the last word itself.
    pub(super) fn alert(self) -> Option<AlertDescription> {
        Some(match self {
            Self::Alert(_) => return None,
            Self::Mac => AlertDescription::BadRecordMac,
            Self::Overflow => AlertDescription::RecordOverflow,
            Self::Unexpected => AlertDescription::UnexpectedMessage,
            Self::Decode => AlertDescription::DecodeError,
            Self::Keys => AlertDescription::InternalError,
        })
    }
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The key of one direction, and how many records it was used for.
pub(super) struct Key {
    key: LessSafeKey,
    iv: Iv,
    sequence: u64,
}

impl Key {
    /// From the handshake or a change of keys: the next record's number and the secrets.
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Keys),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Keys)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// Records that the key was used for.
    pub(super) fn used(&self) -> u64 {
        self.sequence
    }

    /// Each is given once.
    fn nonce(&mut self) -> Result<aead::Nonce, RecordError> {
        if self.sequence >= LAST {
            return Err(RecordError::Keys);
        }
        let nonce = Nonce::new(&self.iv, self.sequence);
        self.sequence += 1;
        Ok(aead::Nonce::assume_unique_for_key(nonce.0))
    }

    /// Writes a record that carries `plain` to the beginning of `to`: `plain.len()` and [`OVERHEAD`] bytes.
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        plain: &[u8],
        to: &mut [u8],
    ) -> Result<usize, RecordError> {
        let length = plain.len() + OVERHEAD;
        let (header, sealed) = to
            .get_mut(..length)
            .and_then(|to| to.split_first_chunk_mut::<HEADER>())
            .ok_or(RecordError::Keys)?;
        *header = make_tls13_aad(length - HEADER);
        let (text, rest) = sealed.split_at_mut_checked(plain.len()).ok_or(RecordError::Keys)?;
        let nonce = self.nonce()?;
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(*header), plain, text, &[kind.into()], rest)
            .map_err(|_| RecordError::Keys)?;
        Ok(length)
    }

    /// Opens a whole record, header included, in its place: what it carries begins behind the header and has the length
    /// that is returned.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, usize), RecordError> {
        let (header, sealed) = record.split_first_chunk_mut::<HEADER>().ok_or(RecordError::Decode)?;
        let nonce = self.nonce()?;
        let plain =
            self.key.open_in_place(nonce, Aad::from(*header), sealed).map_err(|_| RecordError::Mac)?;
        // Padding is zeros behind the type.
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Unexpected)?;
        if end > MOST_PLAIN {
            return Err(RecordError::Overflow);
        }
        Ok((plain.get(end).copied().unwrap_or_default().into(), end))
    }
}

/// Type, major version and length of the record that `bytes` begin with, header included. None: too few bytes to tell.
pub(super) fn head(bytes: &[u8]) -> Option<(ContentType, u8, usize)> {
    let [kind, major, _, high, low] = bytes.first_chunk::<HEADER>()?;
    Some(((*kind).into(), *major, HEADER + usize::from(u16::from_be_bytes([*high, *low]))))
}

/// The length of the record that `bytes` begin with, header included. None: too few bytes to tell.
///
/// # Errors
/// When this begins no record that may come after a handshake.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some((kind, _, length)) = head(bytes) else { return Ok(None) };
    if kind != ContentType::ApplicationData {
        return Err(RecordError::Unexpected);
    }
    if length > MOST { Err(RecordError::Overflow) } else { Ok(Some(length)) }
}

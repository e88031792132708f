//! Records as a peer may send them: sealed well with anything in them, or anything at all.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use rustls::{
    ConnectionTrafficSecrets, ContentType,
    crypto::cipher::{AeadKey, Iv},
};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    incoming::Incoming,
    message::KEY_UPDATE,
    record::{Key, MOST_PLAIN, OVERHEAD},
    schedule::Schedule,
};
use crate::fuzz::Choices;

/// A key that both sides know.
pub(super) fn key() -> Option<Key> {
    let (key, iv) = (AeadKey::from([7; 32]), Iv::from([8; 12]));
    Key::new((0, ConnectionTrafficSecrets::Aes256Gcm { key, iv })).ok()
}

/// Gives bytes in pieces of some length, then ends.
struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.1.min(self.0.len()).min(buf.remaining());
        let (piece, rest) = self.0.split_at_checked(count).unwrap_or_default();
        buf.put_slice(piece);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// What came out of `wire`, and whether it ended as a peer should end it.
pub(super) fn opened(wire: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let Some(key) = key() else { return (all, false) };
    let mut incoming = Incoming::new(key, Vec::new());
    let (mut io, mut cx) = (Pieces(wire, piece.max(1)), Context::from_waker(Waker::noop()));
    loop {
        match incoming.advance(&mut Schedule::None, &mut false) {
            Ok(true) if incoming.plain().is_empty() => return (all, true),
            Ok(true) => {
                let count = incoming.plain().len().min(piece.max(1));
                all.extend_from_slice(incoming.plain().get(..count).unwrap_or_default());
                incoming.consume(count);
            }
            Ok(false) => match incoming.poll_fill(&mut io, &mut cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return (all, false),
            },
            Err(error) => {
                assert_eq!(incoming.advance(&mut Schedule::None, &mut false), Err(error), "once broken");
                return (all, false);
            }
        }
    }
}

/// Whatever comes, what is taken of it was sealed by the peer, in that order; what is well formed is taken whole.
pub(crate) fn records(data: &[u8]) {
    let mut choices = Choices(data);
    let piece = 1 + choices.below(256) * 80;
    let Some(mut key) = key() else { return };
    let (mut wire, mut sent, mut good) = (Vec::new(), Vec::new(), true);
    while !choices.0.is_empty() {
        let length = choices.below(256) * choices.below(70);
        let byte = choices.below(256) as u8;
        let carried = vec![byte; length.min(MOST_PLAIN)];
        let (kind, carried) = match choices.below(8) {
            0 => (ContentType::Handshake, [4, 0, 0, 1, byte].to_vec()),
            1 => (ContentType::Handshake, KEY_UPDATE.to_vec()),
            2 => (ContentType::Alert, vec![1, byte]),
            3 => {
                wire.extend_from_slice(&carried);
                good &= carried.is_empty();
                continue;
            }
            _ => (ContentType::ApplicationData, carried),
        };
        good &= kind == ContentType::ApplicationData && !carried.is_empty();
        let begin = wire.len();
        wire.resize(begin + carried.len() + OVERHEAD, 0);
        let sealed = key.seal(kind, &carried, wire.get_mut(begin..).unwrap_or_default());
        assert_eq!(sealed, Ok(wire.len() - begin));
        if kind == ContentType::ApplicationData {
            sent.extend_from_slice(&carried);
        }
    }
    let (all, _) = opened(&wire, piece);
    assert!(sent.starts_with(&all), "bytes that nobody sealed");
    assert!(!good || all == sent, "{} of {} bytes", all.len(), sent.len());
}

/// A few of every kind.
pub(crate) fn record_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![1, 100, 3, 9, 4, 255, 69, 8, 5],
        vec![255, 255, 69, 1, 4, 255, 69, 2, 4, 255, 69, 3, 4, 255, 69, 4, 4, 10, 1, 5, 4],
        vec![3, 10, 1, 7, 0, 10, 1, 7, 4, 10, 1, 7, 1, 10, 1, 7, 4],
        vec![3, 10, 1, 7, 4, 10, 1, 0, 2, 10, 1, 7, 4],
        vec![9, 10, 1, 7, 4, 10, 10, 23, 3],
    ]
}

//! Properties of what processes say to each other.

use std::{io::Write as _, net::Shutdown, os::unix::net::UnixStream};

use super::{
    Batch, Message, Offer,
    wire::{receive, send},
};
use crate::fuzz::Choices;

/// Whatever comes is a message or an error; a message that was read is sent as the same.
pub(crate) fn handover(data: &[u8]) {
    let mut choices = Choices(data);
    let kind = choices.below(3);
    // More would fill the socket, which nobody empties meanwhile.
    let bytes = choices.0.get(..choices.0.len().min(32 * 1024)).unwrap_or_default();
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    if theirs.write_all(bytes).and_then(|()| theirs.shutdown(Shutdown::Write)).is_err() {
        return;
    }
    match kind {
        0 => again(&ours, &theirs, |message: &Message| format!("{message:?}")),
        1 => again(&ours, &theirs, |batch: &Batch| format!("{:?}", batch.sockets)),
        _ => again(&ours, &theirs, |offer: &Offer| {
            format!("{} {} {} {}", offer.version, offer.generation, offer.within_millis, offer.sockets)
        }),
    }
}

fn again<T: serde::Serialize + serde::de::DeserializeOwned>(
    ours: &UnixStream,
    theirs: &UnixStream,
    describe: impl Fn(&T) -> String,
) {
    let Ok((message, descriptors)) = receive::<T>(ours) else { return };
    assert!(descriptors.is_empty(), "descriptors from nowhere");
    let Ok(()) = send(ours, &message, &[]) else { return };
    let again = receive::<T>(theirs).map(|(message, _)| describe(&message));
    assert_eq!(again.ok(), Some(describe(&message)));
}

/// Messages of each kind.
pub(crate) fn handovers() -> Vec<Vec<u8>> {
    let message = |kind: u8, text: &str| {
        let mut bytes = vec![kind];
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text.as_bytes());
        bytes
    };
    vec![
        message(0, r#"{"Ready":{"version":"0.1.0"}}"#),
        message(0, r#""Go""#),
        message(
            1,
            r#"{"sockets":[{"what":"inbound","asked":"127.0.0.1:80"},{"what":"admin","asked":null}]}"#,
        ),
        message(2, r#"{"version":1,"generation":2,"within_millis":30000,"sockets":3,"identity":null}"#),
        b"\0\x7f\xff\xff\xff{}".to_vec(),
    ]
}

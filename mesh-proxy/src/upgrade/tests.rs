//! What goes over the socket between two processes, within one.

use std::{
    io,
    net::TcpStream,
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use super::{new::SuccessionError, *};
use crate::listeners::bind;

fn listed(what: &str, asked: Option<SocketAddr>) -> Listed {
    Listed { what: what.to_owned(), asked }
}

fn offer(version: u32, sockets: usize) -> Offer {
    Offer { version, generation: 2, within_millis: 1000, sockets, identity: None }
}

/// What the new process makes of an offer and of a batch.
fn taken(offer: &Offer, batch: &[Handle<'_>]) -> Result<Succession, SuccessionError> {
    let (old, new) = UnixStream::pair().unwrap();
    wire::send(&old, offer, &[]).unwrap();
    let sockets = batch.iter().map(|(listed, _)| listed.clone()).collect();
    let descriptors: Vec<_> = batch.iter().map(|(_, socket)| *socket).collect();
    wire::send(&old, &Batch { sockets }, &descriptors).unwrap();
    drop(old);
    Succession::from_stream(new)
}

#[test]
fn a_listener_keeps_its_queue() {
    let listener = bind("test", ([127, 66, 4, 1], 0).into()).unwrap();
    let (real, asked) = (listener.local_addr().unwrap(), SocketAddr::from(([127, 66, 4, 1], 0)));
    let waiting = TcpStream::connect(real).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let admin = UnixListener::bind(dir.path().join("socket")).unwrap();
    let batch =
        [(listed("outbound", Some(asked)), listener.as_fd()), (listed("admin-socket", None), admin.as_fd())];
    let succession = taken(&offer(VERSION, 2), &batch).unwrap();
    assert_eq!(succession.generation(), 2);
    drop(listener);
    assert!(succession.inherited.take("health", asked).is_none(), "any port, of another kind");
    let same = succession.inherited.take("outbound", asked).unwrap();
    assert_eq!(same.local_addr().unwrap(), real);
    let (accepted, _) = same.accept().unwrap();
    assert_eq!(accepted.peer_addr().unwrap(), waiting.local_addr().unwrap());
    assert!(succession.inherited.take_admin_socket().is_some());
    assert!(succession.inherited.take("outbound", asked).is_none(), "each is there once");
}

#[test]
fn many_descriptors_come_in_batches() {
    let listener = bind("test", ([127, 66, 4, 2], 0).into()).unwrap();
    let asked = listener.local_addr().unwrap();
    let (old, new) = UnixStream::pair().unwrap();
    let batch = vec![listed("upstream", Some(asked)); wire::MAX_DESCRIPTORS];
    let descriptors = vec![listener.as_fd(); wire::MAX_DESCRIPTORS];
    let sending = std::thread::scope(|scope| {
        scope.spawn(|| {
            wire::send(&old, &offer(VERSION, 3 * wire::MAX_DESCRIPTORS), &[]).unwrap();
            for _ in 0..3 {
                wire::send(&old, &Batch { sockets: batch.clone() }, &descriptors).unwrap();
            }
        });
        Succession::from_stream(new)
    });
    let count = std::iter::from_fn(|| {
        sending.as_ref().ok().and_then(|succession| succession.inherited.take("upstream", asked))
    });
    assert_eq!(count.count(), 3 * wire::MAX_DESCRIPTORS);
}

#[test]
fn what_is_wrong_is_refused() {
    let listener = bind("test", ([127, 66, 4, 3], 0).into()).unwrap();
    let asked = listener.local_addr().unwrap();
    let elsewhere = SocketAddr::new(asked.ip(), asked.port().wrapping_add(1).max(1));
    let connected = TcpStream::connect(asked).unwrap();
    let refused = |offered: Offer, batch: &[Handle<'_>]| taken(&offered, batch).err().unwrap();
    let right = listed("admin", Some(asked));
    assert!(matches!(refused(offer(VERSION + 1, 0), &[]), SuccessionError::Version(_)));
    assert!(matches!(
        refused(offer(VERSION, 2), &[(right.clone(), listener.as_fd())]),
        SuccessionError::Io(_)
    ));
    let socket =
        |listed, fd| matches!(refused(offer(VERSION, 1), &[(listed, fd)]), SuccessionError::Socket { .. });
    assert!(socket(listed("admin", Some(elsewhere)), listener.as_fd()), "another address");
    assert!(socket(listed("admin-socket", None), listener.as_fd()), "another kind");
    assert!(socket(right, connected.as_fd()), "no listener");
    let (old, new) = UnixStream::pair().unwrap();
    drop(old);
    let error = Succession::from_stream(new).err().unwrap();
    assert!(matches!(error, SuccessionError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
}

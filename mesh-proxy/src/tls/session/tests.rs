//! Sessions with each other and with rustls, over connections of every kind.

use std::{future::Future, io::ErrorKind, sync::Arc};

use mesh_core::protocol::MeshAlpn;
use rustls::{ClientConfig, HandshakeKind, ServerConfig, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    record::{MOST_PLAIN, RecordError},
    *,
};
use crate::{
    net::Prefixed,
    tls::{
        is_plaintext, peer_identity,
        tests::{CART, Ca, JOB, id},
    },
};

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let ca = Ca::new();
    let cart = ca.epoch(ca.svid(&[CART], 24).unwrap());
    let job = ca.epoch(ca.svid(&[JOB], 24).unwrap());
    (job.client_config(&id(CART), MeshAlpn::H2), cart.server_config())
}

fn name() -> ServerName<'static> {
    "127.0.0.1".try_into().unwrap()
}

/// Both sides of a connection that holds so many bytes.
async fn pair(room: usize) -> (Session<DuplexStream>, Session<DuplexStream>) {
    let (client, server) = configs();
    let (near, far) = duplex(room);
    let (near, far) = tokio::join!(connect(client, name(), near), accept(server, far));
    (near.unwrap().0, far.unwrap().0)
}

const LENGTHS: [usize; 9] = [1, 5, 4096, MOST_PLAIN - 1, MOST_PLAIN, MOST_PLAIN + 1, 65_536, 70_000, 500_000];

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 3) as u8).collect()
}

/// Sends bytes to and fro, then ends one direction after the other.
async fn talk<A, B>(mut near: A, mut far: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let caller = async {
        for length in LENGTHS {
            near.write_all(&bytes(length)).await.unwrap();
            near.flush().await.unwrap();
            let mut back = vec![0; length];
            near.read_exact(&mut back).await.unwrap();
            assert!(back == bytes(length), "{length}");
        }
        near.shutdown().await.unwrap();
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        rest
    };
    let called = async {
        for length in LENGTHS {
            let mut there = vec![0; length];
            far.read_exact(&mut there).await.unwrap();
            far.write_all(&there).await.unwrap();
            far.flush().await.unwrap();
        }
        assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0, "the caller has ended");
        far.write_all(b"afterwards").await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (rest, ()) = tokio::join!(caller, called);
    assert_eq!(rest, b"afterwards");
}

#[tokio::test]
async fn sessions_speak_with_each_other() {
    // What the callee says last in the handshake has room.
    for room in [1000, 20_000, 1_000_000] {
        let (near, far) = pair(room).await;
        talk(near, far).await;
    }
}

#[tokio::test]
async fn sessions_speak_with_the_library() {
    let (client, server) = configs();
    let (near, far) = duplex(30_000);
    let (near, far) = tokio::join!(
        connect(Arc::clone(&client), name(), near),
        TlsAcceptor::from(Arc::clone(&server)).accept(far)
    );
    let ((near, established), far) = (near.unwrap(), far.unwrap());
    assert_eq!(established.alpn.as_deref(), Some(MeshAlpn::H2.as_bytes()));
    assert_eq!(peer_identity(established.chain.as_deref()), Ok(id(CART)));
    talk(near, far).await;
    let (near, far) = duplex(30_000);
    let (near, far) = tokio::join!(TlsConnector::from(client).connect(name(), near), accept(server, far));
    let (near, (far, established)) = (near.unwrap(), far.unwrap());
    assert_eq!(established.alpn.as_deref(), Some(MeshAlpn::H2.as_bytes()));
    assert_eq!(peer_identity(established.chain.as_deref()), Ok(id(JOB)));
    talk(near, far).await;
}

#[tokio::test]
async fn a_ticket_resumes_the_session() {
    let (client, server) = configs();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (near, far) = duplex(30_000);
        let accepting = TlsAcceptor::from(Arc::clone(&server)).accept(far);
        let (near, far) = tokio::join!(connect(Arc::clone(&client), name(), near), accepting);
        let ((near, established), far) = (near.unwrap(), far.unwrap());
        assert_eq!(far.get_ref().1.handshake_kind(), Some(kind));
        assert_eq!(peer_identity(established.chain.as_deref()), Ok(id(CART)));
        // The ticket comes with the first bytes.
        talk(near, far).await;
    }
}

#[tokio::test]
async fn keys_change_when_they_were_used_enough_and_when_the_peer_asks() {
    let (client, server) = configs();
    let (mut near, mut far) = pair(30_000).await;
    near.outgoing.limit = 3;
    far.outgoing.limit = 1;
    talk(near, far).await;
    let (near, far) = duplex(30_000);
    let accepting = TlsAcceptor::from(server).accept(far);
    let (near, far) = tokio::join!(connect(client, name(), near), accepting);
    let ((mut near, _), mut far) = (near.unwrap(), far.unwrap());
    near.outgoing.limit = 2;
    for _ in 0..3 {
        far.get_mut().1.refresh_traffic_keys().unwrap();
        far.write_all(b"with other keys").await.unwrap();
        far.flush().await.unwrap();
        let mut came = [0; 15];
        near.read_exact(&mut came).await.unwrap();
        assert_eq!((&came, near.outgoing.asked), (b"with other keys", true));
        near.write_all(b"so are mine").await.unwrap();
        near.flush().await.unwrap();
        assert!(!near.outgoing.asked);
        let mut came = [0; 11];
        far.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"so are mine");
    }
    talk(near, far).await;
}

/// Sends what `forge` makes of a sealed record, and says how reading it ends, twice.
async fn forged(forge: impl FnOnce(&mut Vec<u8>)) -> (io::Error, io::Error, Session<DuplexStream>) {
    let (near, mut far) = pair(100_000).await;
    let Session { mut io, mut outgoing, incoming, schedule } = near;
    let mut wire = vec![0; 10 + OVERHEAD];
    let key = &mut outgoing.key;
    key.seal(rustls::ContentType::ApplicationData, b"0123456789", &mut wire).unwrap();
    forge(&mut wire);
    io.write_all(&wire).await.unwrap();
    io.shutdown().await.unwrap();
    let mut all = Vec::new();
    let first = far.read_to_end(&mut all).await.unwrap_err();
    let second = far.read(&mut [0; 1]).await.unwrap_err();
    // The peer's view: it is told.
    far.io.shutdown().await.unwrap();
    (first, second, Session { io, outgoing, incoming, schedule })
}

#[tokio::test]
async fn what_the_peer_did_not_seal_is_refused_and_said() {
    let why = |error: &io::Error| error.get_ref().and_then(|inner| inner.downcast_ref()).copied();
    for at in [0, 3, 5, 12, 10 + OVERHEAD - 1] {
        let (first, second, mut told) = forged(|wire| wire[at] ^= 1).await;
        let expected = if at == 0 { RecordError::Unexpected } else { RecordError::Mac };
        let expected = if at == 3 { RecordError::Overflow } else { expected };
        if at != 3 {
            assert_eq!((why(&first), why(&second)), (Some(expected), Some(expected)), "{at}: {first}");
        }
        let answer = told.read(&mut [0; 1]).await.unwrap_err();
        let alert = expected.alert().map(RecordError::Alert);
        assert!(at == 3 || why(&answer) == alert, "{at}: {answer}");
    }
    // Again, as it was.
    let (first, ..) = forged(|wire| wire.extend_from_within(..)).await;
    assert_eq!(why(&first), Some(RecordError::Mac));
    // Cut off, and ended without a word.
    for end in [0, 4, 5, 20] {
        let (first, ..) = forged(|wire| wire.truncate(end)).await;
        assert_eq!(first.kind(), ErrorKind::UnexpectedEof, "{end}");
    }
}

#[tokio::test]
async fn records_in_vain_are_bounded() {
    let (mut near, mut far) = pair(1_000_000).await;
    for _ in 0..40 {
        let mut wire = [0; OVERHEAD];
        near.outgoing.key.seal(rustls::ContentType::ApplicationData, &[], &mut wire).unwrap();
        near.io.write_all(&wire).await.unwrap();
    }
    let error = far.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(&RecordError::Unexpected));
    assert_eq!(far.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn who_speaks_no_tls_is_known_at_once() {
    let (client, server) = configs();
    for greeting in [&b"220 mail.example ESMTP\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0; 5]] {
        let (near, mut far) = duplex(10_000);
        far.write_all(greeting).await.unwrap();
        let error = connect(Arc::clone(&client), name(), near).await.unwrap_err();
        assert!(is_plaintext(&error), "{error}");
        let (mut near, far) = duplex(10_000);
        near.write_all(greeting).await.unwrap();
        assert!(is_plaintext(&accept(Arc::clone(&server), far).await.unwrap_err()));
    }
}

#[tokio::test]
async fn who_is_refused_hears_why() {
    let (client, _) = configs();
    let (_, other) = configs();
    let (near, far) = duplex(30_000);
    let (near, far) = tokio::join!(connect(client, name(), near), accept(other, far));
    let (near, far) = (near.unwrap_err(), far.unwrap_err());
    assert!(near.to_string().contains("invalid peer certificate"), "{near}");
    assert!(far.to_string().contains("received fatal alert"), "{far}");
}

#[tokio::test]
async fn an_idle_session_holds_no_buffer_and_is_small() {
    let (mut near, mut far) = pair(100_000).await;
    near.write_all(&bytes(50_000)).await.unwrap();
    far.read_exact(&mut vec![0; 50_000]).await.unwrap();
    {
        let mut byte = [0; 1];
        let mut reading = std::pin::pin!(far.read(&mut byte));
        let once = std::future::poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending()));
        assert!(once.await);
    }
    assert_eq!((far.incoming.held(), near.outgoing.held()), (0, 0));
    let size = size_of::<Session<Prefixed>>();
    assert!(size <= 1800, "{size}");
}

/// A connection on which one byte of what is read is another one.
struct Bent {
    inner: DuplexStream,
    left: usize,
    by: u8,
}

impl AsyncRead for Bent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled_mut().get_mut(before..).unwrap_or_default();
        match read.get_mut(self.left) {
            Some(byte) => {
                *byte ^= self.by;
                self.left = usize::MAX;
            }
            None => self.left = self.left.saturating_sub(read.len()),
        }
        Poll::Ready(Ok(()))
    }
}

crate::net::writes_through!(Bent);

/// Some changes are harmless: in what is not authenticated, and behind the end.
#[tokio::test]
async fn a_changed_handshake_ends_without_a_panic_and_never_in_a_session_of_two_minds() {
    let (client, server) = configs();
    let (mut agreed, mut refused) = (0, 0);
    let positions = (0..60).chain((60..3000).step_by(37));
    for (at, by) in positions.flat_map(|at| [(at, 1), (at, 0xff)]) {
        for (near_at, far_at) in [(at, usize::MAX), (usize::MAX, at)] {
            let (near, far) = duplex(30_000);
            let near = Bent { inner: near, left: near_at, by };
            let far = Bent { inner: far, left: far_at, by };
            let calling = async {
                let (mut near, _) = connect(Arc::clone(&client), name(), near).await?;
                near.write_all(b"hello").await?;
                near.flush().await?;
                near.read_exact(&mut [0; 2]).await
            };
            let called = async {
                let (mut far, _) = accept(Arc::clone(&server), far).await?;
                let mut came = [0; 5];
                far.read_exact(&mut came).await?;
                assert_eq!(&came, b"hello");
                far.write_all(b"hi").await?;
                far.shutdown().await
            };
            // Some changes only make one side wait for more.
            let both = Box::pin(async { tokio::join!(calling, called) });
            match tokio::time::timeout(std::time::Duration::from_millis(50), both).await {
                Ok((Ok(_), Ok(()))) => agreed += 1,
                _ => refused += 1,
            }
        }
    }
    assert!(refused > 200 && agreed > 0, "{refused} refused, {agreed} agreed");
}

#[tokio::test]
async fn a_hello_in_many_records_is_put_together() {
    let (client, server) = configs();
    let hello = {
        let mut client = rustls::ClientConnection::new(client, name()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    };
    let (mut near, far) = duplex(30_000);
    let accepting = tokio::spawn(accept(server, far));
    for part in hello[5..].chunks(100) {
        near.write_all(&[22, 3, 1, 0, part.len() as u8]).await.unwrap();
        near.write_all(part).await.unwrap();
    }
    let mut answer = [0; 6];
    near.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[5]), (22, 2), "a ServerHello");
    drop(near);
    assert_eq!(accepting.await.unwrap().unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

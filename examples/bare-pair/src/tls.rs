//! Mutual TLS 1.3 with one expected SPIFFE ID, and one type for plain and encrypted connections.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Both directions' TLS, and who the other side must be.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    peer: String,
}

impl Tls {
    /// Reads certificate, key and roots. `alpn` is offered to servers.
    pub(crate) fn load(
        cert: &Path,
        key: &Path,
        roots: &Path,
        peer: String,
        alpn: Option<String>,
    ) -> Result<Self> {
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key).context("cannot read the key")?;
        let mut store = RootCertStore::empty();
        for root in certificates(roots)? {
            store.add(root)?;
        }
        let (roots, provider) = (Arc::new(store), Arc::new(aws_lc_rs::default_provider()));
        let callers =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(callers)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(servers)))
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = alpn.map(String::into_bytes).into_iter().collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            peer,
        })
    }

    /// The server's handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<Stream> {
        let stream = self.acceptor.accept(stream).await?;
        self.check(stream.get_ref().1.peer_certificates())?;
        Ok(Stream::Accepted(Box::new(stream)))
    }

    /// The client's handshake.
    pub(crate) async fn connect(&self, stream: TcpStream, ip: IpAddr) -> Result<Stream> {
        let stream = self.connector.connect(ServerName::IpAddress(ip.into()), stream).await?;
        self.check(stream.get_ref().1.peer_certificates())?;
        Ok(Stream::Dialled(Box::new(stream)))
    }

    fn check(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<()> {
        let leaf = chain.and_then(<[_]>::first).context("a peer without a certificate")?;
        let (_, leaf) = X509Certificate::from_der(leaf)?;
        let names = leaf.subject_alternative_name()?.context("a certificate without names")?;
        match names.value.general_names.as_slice() {
            [GeneralName::URI(found)] if *found == self.peer => Ok(()),
            found => bail!("the peer is {found:?} instead of {}", self.peer),
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("cannot read {}", file.display()))
}

/// Verifies the chain alone: the SPIFFE ID is looked at after the handshake.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::{CertificateError, Error};
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Accepted(Box<server::TlsStream<TcpStream>>),
    Dialled(Box<client::TlsStream<TcpStream>>),
}

/// Calls the same method on whichever stream it is.
macro_rules! delegate {
    ($self:ident, $method:ident, $($arg:expr),*) => {
        match $self.get_mut() {
            Stream::Plain(io) => Pin::new(io).$method($($arg),*),
            Stream::Accepted(io) => Pin::new(io.as_mut()).$method($($arg),*),
            Stream::Dialled(io) => Pin::new(io.as_mut()).$method($($arg),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored, cx, bufs)
    }
}

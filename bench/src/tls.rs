//! TLS of the client's connections: version 1.3, and each handshake is a full one.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Trusts the certificate in this file.
pub(crate) fn trusting(certificate: &Path) -> Result<Arc<ClientConfig>> {
    let certificate = CertificateDer::from_pem_file(certificate)
        .map_err(|error| anyhow!("{}: {error}", certificate.display()))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// One connection's session. The socket is the caller's.
pub(crate) struct Tls {
    session: ClientConnection,
    /// What the socket has not taken yet.
    outbox: Vec<u8>,
}

impl Tls {
    pub(crate) fn open(config: &Arc<ClientConfig>) -> Result<Box<Self>> {
        let server = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Box::new(Tls {
            session: ClientConnection::new(Arc::clone(config), server)?,
            outbox: Vec::new(),
        }))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// What the socket is to send; takes all of `plain`. Before the handshake is over, that is the handshake's part.
    pub(crate) fn encrypt(&mut self, plain: &mut Vec<u8>) -> Result<&mut Vec<u8>> {
        let written = self.session.writer().write_all(plain);
        written.context("buffering a request")?;
        plain.clear();
        while self.session.wants_write() {
            self.session.write_tls(&mut self.outbox)?;
        }
        Ok(&mut self.outbox)
    }

    /// The requests' answers in what has arrived.
    pub(crate) fn decrypt(&mut self, mut arrived: &[u8]) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        while !arrived.is_empty() {
            self.session.read_tls(&mut arrived)?;
            let state = self.session.process_new_packets();
            let state = state.context("TLS with the server")?;
            let known = plain.len();
            plain.resize(known + state.plaintext_bytes_to_read(), 0);
            self.session.reader().read_exact(&mut plain[known..])?;
        }
        Ok(plain)
    }
}

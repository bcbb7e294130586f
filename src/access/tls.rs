//! TLS of both listeners, and the identities of client certificates.

use std::fmt;
use std::io;
use std::sync::Arc;

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConnection, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::Tls;
use super::turns::Turns;
use super::{Identity, Role};

/// The scheme of the URI in a client certificate: `odyssey://role/name`.
const IDENTITY_SCHEME: &str = "odyssey://";

/// The keys and certificates in force at one listener. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<ServerConfig>>,
    /// Of the handshakes of both listeners, which share the processors.
    turns: Turns,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// What was read from the files of section `tls`.
#[derive(Clone)]
pub struct Loaded {
    /// Of customers and staff.
    configs: [Arc<ServerConfig>; 2],
    /// When the server's certificate expires.
    pub not_after: Timestamp,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads the files. `verify_staff`: the staff's listener asks for client certificates.
    ///
    /// # Errors
    /// If a file cannot be read or has no PEM, the key is not the certificate's, or an authority is unusable. Names the key.
    pub fn read(tls: &Tls, verify_staff: bool) -> anyhow::Result<Self> {
        let of = |key: &str, path: &std::path::Path| {
            format!("configuration key `tls.{key}`: `{}`", path.display())
        };
        let certificates_of = |key: &str, path: &std::path::Path| {
            let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            let certificates: Vec<CertificateDer<'static>> = certificates
                .map_err(|error| anyhow::anyhow!("{error}"))
                .with_context(|| of(key, path))?;
            ensure!(
                !certificates.is_empty(),
                "{}: it has no certificate in PEM",
                of(key, path)
            );
            anyhow::Ok(certificates)
        };
        let chain = certificates_of("certificate_file", &tls.certificate_file)?;
        let key = PrivateKeyDer::from_pem_file(&tls.key_file)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| of("key_file", &tls.key_file))?;
        let (_, certificate) = X509Certificate::from_der(&chain[0])
            .map_err(|error| anyhow::anyhow!("{error}"))
            .with_context(|| of("certificate_file", &tls.certificate_file))?;
        let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())?;
        let provider = Arc::new(ring::default_provider());
        let config = |verifies: bool| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()?;
            let builder = if verifies {
                let path = &tls.client_ca_file;
                let mut roots = RootCertStore::empty();
                for authority in certificates_of("client_ca_file", path)? {
                    roots
                        .add(authority)
                        .with_context(|| of("client_ca_file", path))?;
                }
                // Without a certificate a connection has no identity, and may ask for its health.
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                )
                .allow_unauthenticated()
                .build()
                .with_context(|| of("client_ca_file", path))?;
                builder.with_client_cert_verifier(verifier)
            } else {
                builder.with_no_client_auth()
            };
            let mut config = builder
                .with_single_cert(chain.clone(), key.clone_key())
                .with_context(|| of("key_file", &tls.key_file))?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            if verifies {
                // A resumed session would not verify the client again: an expired certificate would stay valid.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            } else {
                config.ticketer = ring::Ticketer::new()?;
            }
            anyhow::Ok(Arc::new(config))
        };
        Ok(Self {
            configs: [config(false)?, config(verify_staff)?],
            not_after,
        })
    }

    /// Of customers and staff, served by so many workers.
    pub fn acceptors(self, workers: usize) -> [Acceptor; 2] {
        let turns = Turns::new(workers);
        self.configs.map(|config| Acceptor {
            config: Arc::new(ArcSwap::new(config)),
            turns: turns.clone(),
        })
    }

    /// Puts them in force for new connections.
    pub fn replace(self, acceptors: &[Acceptor; 2]) {
        for (config, acceptor) in self.configs.into_iter().zip(acceptors) {
            acceptor.config.store(config);
        }
    }
}

impl Acceptor {
    /// Reads the `ClientHello` at once, which costs next to nothing. What follows is key exchange and signatures, some 0.4 ms of
    /// a processor, so it is done in turns: of a thousand clients that connect at the same time, each waits for those
    /// before it, and requests on open connections wait for one step only.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        // Boxed: the caller's future would be as large as a handshake.
        let handshake = Box::pin(hello.into_stream(self.config.load_full()));
        self.turns.take(handshake).await
    }
}

/// Whom a connection's client certificate names, and until when; none without one, or without exactly one URI of an identity.
#[derive(Debug, Clone)]
pub struct Certified {
    pub identity: Arc<Identity>,
    /// The last moment at which the certificate is valid.
    pub not_after: Timestamp,
}

impl Certified {
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let certificate = connection.peer_certificates()?.first()?;
        Self::read(certificate)
    }

    fn read(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let names = names.value.general_names.iter();
        let mut uris = names.filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(IDENTITY_SCHEME),
            _ => None,
        });
        let (role, name) = uris.next()?.split_once('/')?;
        let role: Role = role.parse().ok()?;
        let fits = (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !fits || uris.next().is_some() {
            return None;
        }
        let identity = Identity {
            name: name.into(),
            subject: name.into(),
            roles: role.into(),
            token: None,
        };
        let not_after = certificate.validity().not_after.timestamp();
        Some(Self {
            identity: Arc::new(identity),
            not_after: Timestamp::from_second(not_after).ok()?,
        })
    }
}

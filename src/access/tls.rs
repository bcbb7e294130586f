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
use tokio_rustls::TlsAcceptor;
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
    /// Key exchange and signatures take some 0.4 ms of a processor, so a handshake is done in turns: of a thousand clients that
    /// connect at the same time, each waits for those before it, and requests on open connections wait for one step only.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        // A silent client takes no turn.
        stream.readable().await?;
        // All of the handshake is done in turns, also reading its first message: to read a thousand takes 20 ms. Boxed: the
        // caller's future would be as large as a handshake.
        let handshake = Box::pin(async {
            let acceptor = TlsAcceptor::from(self.config.load_full());
            acceptor.accept(stream).await
        });
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixStream};
    use tokio::task::JoinSet;

    use super::*;

    const CLIENTS: usize = 20;

    /// Is asked for the key in each handshake, when the client's first message has been read. At that moment a request arrives
    /// elsewhere.
    #[derive(Debug)]
    struct Keys {
        key: Arc<CertifiedKey>,
        asked: AtomicUsize,
        requests: UnixStream,
        served: Arc<AtomicUsize>,
    }

    impl ResolvesServerCert for Keys {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            assert_eq!(self.served.load(Ordering::Relaxed), asked);
            self.requests.try_write(b"x").unwrap();
            Some(Arc::clone(&self.key))
        }
    }

    fn key() -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let der = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = ring::sign::any_supported_type(&der).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key))
    }

    fn first_message() -> Vec<u8> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(RootCertStore::empty());
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(builder.with_no_client_auth()), name);
        let mut message = Vec::new();
        client.unwrap().write_tls(&mut message).unwrap();
        message
    }

    #[tokio::test]
    async fn what_arrives_during_a_handshake_is_served_before_the_next_one() {
        let (requests, mut incoming) = UnixStream::pair().unwrap();
        requests.writable().await.unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let keys = Keys {
            key: key(),
            asked: AtomicUsize::new(0),
            requests,
            served: Arc::clone(&served),
        };
        let serving = tokio::spawn(async move {
            while incoming.read_u8().await.is_ok() {
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth();
        let config = config.with_cert_resolver(Arc::new(keys));
        let acceptor = Acceptor {
            config: Arc::new(ArcSwap::from_pointee(config)),
            turns: Turns::new(1),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut clients, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..CLIENTS {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&first_message()).await.unwrap();
            clients.push(client);
            streams.push(listener.accept().await.unwrap().0);
        }
        // All of them at once.
        let mut handshakes = JoinSet::new();
        for stream in streams {
            let acceptor = acceptor.clone();
            handshakes.spawn(async move { acceptor.accept(stream).await.map(drop) });
        }
        for client in &mut clients {
            // The connection is closed if the handshake has panicked.
            client.read_u8().await.unwrap();
        }
        handshakes.shutdown().await;
        drop(acceptor);
        serving.await.unwrap();
    }
}

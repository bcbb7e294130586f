//! TLS of the client commands: whom they trust, and the certificate that they present.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whom to trust.
#[derive(Debug, Clone, Default)]
pub(super) enum Trust {
    /// The system's authorities.
    #[default]
    System,
    /// The authorities in this file, or a self-signed certificate.
    Authorities(PathBuf),
    /// Only the very certificate in this file, whatever names are in it: that of the server on this machine.
    Certificate(PathBuf),
    /// Any server: for a health check, which sends and learns nothing secret. It must not fail while the server, rightly, has another
    /// certificate in force than that in the file.
    Any,
}

/// Files of the client certificate that is presented to the server.
#[derive(Debug, Clone)]
pub(super) struct Presented {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Trust {
    /// # Errors
    /// If the server is not trusted, or a file cannot be read.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
        presented: Option<&Presented>,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| anyhow!("{host:?} is not the name of a host"))?;
        let connector = TlsConnector::from(Arc::new(self.config(presented)?));
        Ok(connector.connect(name, stream).await?)
    }

    fn config(&self, presented: Option<&Presented>) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let mut roots = RootCertStore::empty();
        let builder = match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = roots.add_parsable_certificates(found.certs);
                ensure!(
                    added > 0,
                    "this system has no trusted authorities; name one with --ca-file"
                );
                builder.with_root_certificates(roots)
            }
            Self::Authorities(path) => {
                for authority in read(path)? {
                    roots
                        .add(authority)
                        .with_context(|| path.display().to_string())?;
                }
                builder.with_root_certificates(roots)
            }
            Self::Certificate(_) | Self::Any => {
                let certificate = match self {
                    Self::Certificate(path) => Some(read(path)?.swap_remove(0)),
                    _ => None,
                };
                let only = Arc::new(Only {
                    certificate,
                    provider,
                });
                builder.dangerous().with_custom_certificate_verifier(only)
            }
        };
        let Some(Presented { certificate, key }) = presented else {
            return Ok(builder.with_no_client_auth());
        };
        let read_key = PrivateKeyDer::from_pem_file(key).map_err(|error| anyhow!("{error}"));
        let read_key = read_key.with_context(|| key.display().to_string())?;
        builder
            .with_client_auth_cert(read(certificate)?, read_key)
            .with_context(|| {
                let (certificate, key) = (certificate.display(), key.display());
                format!("{key} is not the key of {certificate}")
            })
    }
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let of = || path.display().to_string();
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all: Vec<_> = all.map_err(|error| anyhow!("{error}")).with_context(of)?;
    ensure!(!all.is_empty(), "{} has no certificate in PEM", of());
    Ok(all)
}

/// Trusts one certificate: stricter than an authority, so neither its names nor its dates matter. Without one, trusts any.
#[derive(Debug)]
struct Only {
    certificate: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self
            .certificate
            .as_ref()
            .is_none_or(|known| presented == known)
        {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

//! TLS on both listeners: certificates that are wrong, expired, replaced; client certificates; plain clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;
use testkit::{found, until};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::access::Tokens;
use crate::client::{Door, get, order, post, within};
use crate::shop::{Shop, odyssey, text};

/// An authority, and the files that it signs.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities are distinguished by their names.
        let name = dir.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Signs `<name>.pem` with `<name>.key`, which replace those that are there: the key first, as its own step.
    pub(crate) fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
    }

    /// A certificate for a client, with this URI.
    fn sign_client(&self, name: &str, uri: &str) {
        self.sign(name, |params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        });
    }

    /// A client that trusts this authority; with the certificate of this name, if any.
    pub(crate) fn client(&self, certificate: Option<&str>) -> &'static Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate_in(&self.file("ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![certificate_in(&self.file(&format!("{name}.pem")))];
                let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key")));
                builder.with_client_auth_cert(chain, key.unwrap()).unwrap()
            }
        };
        Box::leak(Box::new(Arc::new(config)))
    }

    /// A shop with the certificate `shop`, whose doors trust this authority.
    async fn shop(&self, more: &[(&str, &str)]) -> Shop {
        let files = [self.path("shop.pem"), self.path("shop.key")];
        let settings = [
            ("tls.certificate_file", &*files[0]),
            ("tls.key_file", &*files[1]),
        ];
        let mut shop = Shop::open(&[&settings, more].concat()).await;
        let tls = Some(self.client(None));
        shop.customers = Door {
            tls,
            ..shop.customers
        };
        shop.staff = Door { tls, ..shop.staff };
        shop
    }
}

fn certificate_in(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

/// The certificate that a server presents, and the protocol that it agrees on; or why there is none.
async fn handshake(
    door: Door,
    config: &Arc<ClientConfig>,
    protocols: &[&str],
) -> Result<(CertificateDer<'static>, Option<String>), std::io::Error> {
    let mut config = (**config).clone();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(door.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let connection = stream.get_ref().1;
    let agreed = connection.alpn_protocol();
    let agreed = agreed.map(|name| String::from_utf8(name.to_vec()).unwrap());
    Ok((
        connection.peer_certificates().unwrap()[0]
            .clone()
            .into_owned(),
        agreed,
    ))
}

#[tokio::test]
async fn both_listeners_speak_tls_with_either_protocol_and_a_plain_client_gets_nothing() {
    let authority = Authority::create();
    authority.sign("shop", |_| ());
    let shop = authority.shop(&[]).await;
    let customer = shop.customers.hold(order());
    shop.until("one is held", |now| now.held() == 1).await;
    for door in [shop.customers, shop.staff] {
        for (protocols, agreed) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let (_, found) = handshake(door, door.tls.unwrap(), protocols).await.unwrap();
            assert_eq!(found.as_deref(), agreed);
        }
        // Neither a plain request nor one that trusts another authority.
        let mut raw = door.raw().await;
        raw.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert!(!raw.rest().await.contains("HTTP/1.1"));
        let other = Authority::create();
        let refused = handshake(door, other.client(None), &[]).await.unwrap_err();
        assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    }
    let started = shop.start().await;
    shop.finish(&started.id).await;
    customer.answer().await.expect(200);
    // The commands: by the configuration's own certificate, by the authority, and not by the system's.
    let run = |arguments: &[&str], certificate: Option<&str>| {
        let mut command = odyssey();
        command.args(arguments);
        for (key, door) in [("CUSTOMERS", shop.customers), ("STAFF", shop.staff)] {
            command.env(format!("ODYSSEY_{key}__LISTEN"), door.address.to_string());
        }
        if let Some(certificate) = certificate {
            command.env("ODYSSEY_TLS__CERTIFICATE_FILE", certificate);
            command.env("ODYSSEY_TLS__KEY_FILE", authority.path("shop.key"));
        }
        command.output().unwrap()
    };
    let (own, ca) = (authority.path("shop.pem"), authority.path("ca.pem"));
    let url = format!(
        "https://localhost:{}/healthz",
        shop.customers.address.port()
    );
    for (output, code) in [
        (run(&["health"], Some(&own)), 0),
        // A server may rightly have another certificate in force than that in the file.
        (run(&["health"], Some(&ca)), 0),
        (run(&["line"], Some(&own)), 0),
        (run(&["line"], Some(&ca)), 1),
        (run(&["health", &url, "--ca-file", &ca], None), 0),
        (run(&["health", &url], None), 1),
    ] {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_certificate_is_replaced_while_200_are_held_and_a_broken_one_leaves_the_old_one_in_force()
{
    let authority = Authority::create();
    authority.sign("shop", |_| ());
    let first = certificate_in(&authority.file("shop.pem"));
    let shop = authority.shop(&[]).await;
    let customers: Vec<_> = (0..200).map(|_| shop.customers.hold(order())).collect();
    shop.until("200 are held", |now| now.held() == 200).await;
    let presented = async || {
        let tls = shop.customers.tls.unwrap();
        handshake(shop.customers, tls, &[]).await.unwrap().0
    };
    assert_eq!(presented().await, first);
    authority.sign("shop", |_| ());
    let second = certificate_in(&authority.file("shop.pem"));
    found("the new certificate is presented", async || {
        (presented().await == second).then_some(())
    })
    .await;
    // Half of a file; and a key that is not the certificate's.
    let good = std::fs::read_to_string(authority.file("shop.pem")).unwrap();
    std::fs::write(authority.file("shop.pem"), &good[..good.len() / 2]).unwrap();
    let reported = found("it is reported", async || {
        let answer = shop.staff.ask(get("/readyz/access")).await;
        (answer.status == 503).then(|| answer.to_string())
    });
    let reported = reported.await;
    assert!(reported.contains("tls.certificate_file"), "{reported}");
    assert_eq!(presented().await, second);
    std::fs::write(authority.file("shop.pem"), good).unwrap();
    found("it is mended", async || {
        let answer = shop.staff.ask(get("/readyz/access")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    for _ in 0..200 {
        let started = shop.start().await;
        shop.finish(&started.id).await;
    }
    for customer in customers {
        customer.answer().await.expect(200);
    }
    shop.signal(rustix::process::Signal::TERM);
}

#[tokio::test]
async fn an_expired_certificate_is_presented_with_a_warning_and_a_foreign_key_stops_the_start() {
    let authority = Authority::create();
    authority.sign("shop", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let shop = authority.shop(&[]).await;
    let refused = handshake(shop.staff, shop.staff.tls.unwrap(), &[])
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("certificate expired"),
        "{refused}"
    );
    assert!(
        shop.log().contains("the server's certificate has expired"),
        "{}",
        shop.log()
    );
    shop.signal(rustix::process::Signal::TERM);
    shop.ended_well().await;
    authority.sign("other", |_| ());
    for (certificate, key, said) in [
        ("shop.pem", "other.key", "configuration key `tls.key_file`"),
        ("shop.pem", "shop.pem", "configuration key `tls.key_file`"),
        (
            "shop.key",
            "shop.key",
            "configuration key `tls.certificate_file`",
        ),
        (
            "missing.pem",
            "shop.key",
            "configuration key `tls.certificate_file`",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = odyssey();
        command.arg("serve").current_dir(dir.path());
        command
            .env("ODYSSEY_CUSTOMERS__LISTEN", "127.0.0.1:0")
            .env("ODYSSEY_STAFF__LISTEN", "127.0.0.1:0");
        command.env("ODYSSEY_TLS__CERTIFICATE_FILE", authority.path(certificate));
        command.env("ODYSSEY_TLS__KEY_FILE", authority.path(key));
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && log.contains(said),
            "{certificate} {key}: {log}"
        );
    }
}

#[tokio::test]
async fn a_client_certificate_stands_for_the_role_and_the_name_in_its_uri() {
    let authority = Authority::create();
    authority.sign("shop", |_| ());
    authority.sign_client("bo", "odyssey://barista/bo");
    authority.sign_client("prometheus", "odyssey://scraper/prometheus");
    authority.sign_client("chef", "odyssey://chef/bo");
    authority.sign_client("page", "https://shop.example/");
    let ca = authority.path("ca.pem");
    let shop = authority
        .shop(&[("staff.auth", "mtls"), ("tls.client_ca_file", &ca)])
        .await;
    let with = |name: &str| Door {
        tls: Some(authority.client(Some(name))),
        ..shop.staff
    };
    shop.customers
        .ask(order().prefer("respond-async"))
        .await
        .expect(202);
    let started = with("bo").ask(post("/start/")).await.expect(200);
    let finish = format!("/finish/?order_id={}", text(&started["order_id"]));
    assert_eq!(
        with("bo").ask(post(finish)).await.expect(200)["barista"],
        "bo"
    );
    with("bo")
        .ask(get("/flood"))
        .await
        .expect_problem(403, "role-missing");
    assert_eq!(with("prometheus").ask(get("/metrics")).await.status, 200);
    for name in ["chef", "page"] {
        with(name)
            .ask(post("/start/"))
            .await
            .expect_problem(401, "credential-missing");
    }
    // Without one: health, but no order; a token is none.
    shop.staff.ask(get("/readyz")).await.expect(200);
    let token = format!("Bearer ody_0123456789ab_{}", "A".repeat(43));
    let bearer = post("/start/").header("Authorization", token);
    shop.staff
        .ask(bearer)
        .await
        .expect_problem(401, "credential-missing");
    // Of another authority.
    let other = Authority::create();
    other.sign_client("bo", "odyssey://barista/bo");
    std::fs::copy(other.file("bo.pem"), authority.file("forged.pem")).unwrap();
    std::fs::copy(other.file("bo.key"), authority.file("forged.key")).unwrap();
    let forged = authority.client(Some("forged"));
    let stream = handshake(shop.staff, forged, &["http/1.1"]).await;
    // With TLS 1.3 the client learns of it at its first read.
    if stream.is_ok() {
        let door = Door {
            tls: Some(forged),
            ..shop.staff
        };
        let mut connection = door.connect().await;
        assert!(connection.try_ask(&get("/healthz")).await.is_err());
    }
    shop.signal(rustix::process::Signal::KILL);
}

#[tokio::test]
async fn a_command_presents_a_client_certificate() {
    let authority = Authority::create();
    authority.sign("shop", |_| ());
    authority.sign_client("bo", "odyssey://barista/bo");
    let ca = authority.path("ca.pem");
    let shop = authority
        .shop(&[("staff.auth", "mtls"), ("tls.client_ca_file", &ca)])
        .await;
    let url = format!("https://localhost:{}", shop.staff.address.port());
    let (certificate, key) = (authority.path("bo.pem"), authority.path("bo.key"));
    let foreign = authority.path("shop.key");
    for (files, code, said) in [
        (
            &["--certificate-file", &*certificate, "--key-file", &key][..],
            0,
            "No order is waiting.",
        ),
        (&[], 1, "A client certificate is needed (401)"),
        (
            &["--certificate-file", &certificate, "--key-file", &foreign],
            1,
            "is not the key of",
        ),
        (
            &["--certificate-file", &key, "--key-file", &key],
            1,
            "has no certificate in PEM",
        ),
        (&["--certificate-file", &certificate], 2, "--key-file"),
    ] {
        let mut command = odyssey();
        command.args(["start", "--url", &url, "--ca-file", &ca]);
        let output = command.args(files).output().unwrap();
        let printed = format!("{output:?}");
        assert_eq!(output.status.code(), Some(code), "{files:?}: {printed}");
        assert!(printed.contains(said), "{files:?}: {printed}");
    }
    shop.signal(rustix::process::Signal::TERM);
}

#[tokio::test]
async fn clients_that_pause_in_their_handshake_hold_up_no_other() {
    let authority = Authority::create();
    authority.sign("shop", |_| ());
    // One worker does one handshake at a time.
    let shop = authority.shop(&[("runtime.workers", "1")]).await;
    let tls = shop.customers.tls.unwrap();
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(tls), name).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut paused = Vec::new();
    for _ in 0..20 {
        let mut in_its_hello = shop.customers.raw().await;
        in_its_hello.write(&hello[..hello.len() / 2]).await;
        let mut after_it = shop.customers.raw().await;
        after_it.write(&hello).await;
        within("the server's flight", after_it.0.readable())
            .await
            .unwrap();
        paused.extend([in_its_hello, after_it]);
    }
    let customer = shop.customers.hold(order());
    let started = shop.start().await;
    shop.finish(&started.id).await;
    customer.answer().await.expect(200);
    drop(paused);
    shop.close().await;
}

#[tokio::test]
async fn sighup_reads_tokens_and_certificates_again_although_no_file_has_changed() {
    let (authority, tokens) = (Authority::create(), Tokens::create());
    authority.sign("shop", |_| ());
    tokens.issue("operator");
    let file = tokens.file().display().to_string();
    let shop = authority
        .shop(&[("staff.auth", "tokens"), ("access.tokens_file", &file)])
        .await;
    assert!(!shop.log().contains("were read again"), "{}", shop.log());
    shop.signal(rustix::process::Signal::HUP);
    for files in ["the tokens", "the certificates"] {
        let line = format!("{files} were read again");
        until(&line, async || shop.log().contains(&line)).await;
    }
    shop.signal(rustix::process::Signal::TERM);
}

#[tokio::test]
async fn a_self_signed_certificate_is_created_once_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["shop.pem", "shop.key"].map(|name| dir.path().join(name).display().to_string());
    let create = |more: &[&str]| {
        let mut command = odyssey();
        command.args([
            "certificate",
            "self-signed",
            "--certificate",
            &files[0],
            "--key",
            &files[1],
        ]);
        command.args(more).output().unwrap()
    };
    let created = create(&["--host", "localhost", "--days", "2"]);
    assert!(created.status.success(), "{created:?}");
    assert_eq!(create(&[]).status.code(), Some(1));
    assert!(create(&["--force"]).status.success());
    assert!(!create(&["--force", "--days", "9999"]).status.success());
    let settings = [
        ("tls.certificate_file", &*files[0]),
        ("tls.key_file", &*files[1]),
    ];
    let shop = Shop::open(&settings).await;
    let url = format!("https://localhost:{}", shop.staff.address.port());
    let mut command = odyssey();
    let output = command
        .args(["line", "--url", &url, "--ca-file", &files[0]])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    shop.signal(rustix::process::Signal::TERM);
}

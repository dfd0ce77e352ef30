//! Who may talk to whom: mutual TLS on every connection, and the same build and run on every request.
//!
//! Without certificates of the site, a run has an authority of its own, whose key the driver hands to its workers (`pool`); each process
//! issues itself a certificate. All certificates carry one name, for which every client asks, so that addresses do not matter. With
//! certificates of the site (`cluster.tls`), their names are those of the hosts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use ballista_core::extension::EndpointOverrideFn;
use ballista_core::extension::SessionConfigExt as _;
use ballista_core::utils::GrpcServerConfig;
use ballista_core::utils::create_grpc_server;
use datafusion::prelude::SessionConfig;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use sha2::Digest as _;
use tonic::Request;
use tonic::Status;
use tonic::service::interceptor::Interceptor;
use tonic::service::interceptor::InterceptorLayer;
use tonic::transport::Certificate;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;
use tonic::transport::Identity;
use tonic::transport::Server;
use tonic::transport::ServerTlsConfig;
use tower::layer::util::Identity as NoLayer;
use tower::layer::util::Stack;

use crate::config::Tls;
use crate::config::Waits;
use crate::engine::cluster::ClusterError;

/// The name in every certificate of a run's authority.
const NAME: &str = "pool.klieg.internal";
/// Callers of other builds that are remembered.
const STRANGERS_MAX: usize = 20;

/// Certificate and key of an authority, as PEM.
#[derive(Clone)]
pub struct Authority {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// Makes one (ECDSA P-256).
    ///
    /// # Errors
    /// No random numbers.
    pub fn generate() -> Result<Self, ClusterError> {
        let key = KeyPair::generate().map_err(ClusterError::tls)?;
        let certificate = authority()?;
        let certificate = certificate.self_signed(&key).map_err(ClusterError::tls)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Takes both from the text of a file.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let block = |label: &str| {
            let (begin, end) = (
                format!("-----BEGIN {label}-----"),
                format!("-----END {label}-----"),
            );
            let from = text.find(&begin)?;
            let to = from + text[from..].find(&end)? + end.len();
            Some(format!("{}\n", &text[from..to]))
        };
        let (certificate, key) = (block("CERTIFICATE")?, block("PRIVATE KEY")?);
        KeyPair::from_pem(&key).ok()?;
        Some(Self { certificate, key })
    }

    /// Returns the text of such a file.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

/// All authorities have one name, so that their key alone says what they issue.
fn authority() -> Result<CertificateParams, ClusterError> {
    let mut params = named(Vec::new(), "klieg")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn named(names: Vec<String>, common: &str) -> Result<CertificateParams, ClusterError> {
    let mut params = CertificateParams::new(names).map_err(ClusterError::tls)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    Ok(params)
}

/// What a process shows and whom it believes.
#[derive(Clone)]
pub(super) struct Auth {
    authority: String,
    certificate: String,
    key: String,
    /// The name that servers must have; `None` for that of their host.
    name: Option<&'static str>,
    /// `klieg/<build>/<run>`: the one header that Ballista's Flight clients let us set.
    agent: String,
    waits: Waits,
    strangers: Strangers,
}

/// Address and build of callers that were refused, since theirs is another build.
type Strangers = Arc<Mutex<BTreeSet<(String, String)>>>;

impl Auth {
    /// Issues a certificate of `authority`.
    pub(super) fn issue(
        authority: &Authority,
        (build, run): (&str, &str),
        who: &str,
        waits: Waits,
    ) -> Result<Self, ClusterError> {
        let key = KeyPair::from_pem(&authority.key).map_err(ClusterError::tls)?;
        let issuer = Issuer::new(self::authority()?, key);
        let mut params = named(vec![NAME.to_owned()], who)?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(ClusterError::tls)?;
        let certificate = params.signed_by(&key, &issuer).map_err(ClusterError::tls)?;
        Ok(Self {
            authority: authority.certificate.clone(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            name: Some(NAME),
            agent: agent(build, run),
            waits,
            strangers: Strangers::default(),
        })
    }

    /// Takes the certificates of the site.
    pub(super) fn of_site(
        tls: &Tls,
        (build, run): (&str, &str),
        waits: Waits,
    ) -> Result<Self, ClusterError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| ClusterError::Secret {
                path: path.display().to_string(),
                what: error.to_string(),
            })
        };
        Ok(Self {
            authority: read(&tls.authority)?,
            certificate: read(&tls.certificate)?,
            key: read(&tls.key)?,
            name: None,
            agent: agent(build, run),
            waits,
            strangers: Strangers::default(),
        })
    }

    fn client(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(Identity::from_pem(&self.certificate, &self.key))
            // Of connections that are made anew by themselves; the first is bounded by `dial::in_time`, which is over sooner.
            .timeout(self.waits.connect * 3);
        match self.name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }

    /// Secures an endpoint. Ballista hands `http://` to half of them, on which tonic ignores TLS and talks plain text: so the scheme is
    /// changed too.
    pub(super) fn endpoint(
        &self,
        endpoint: Endpoint,
    ) -> Result<Endpoint, Box<dyn std::error::Error + Send + Sync>> {
        let url = endpoint.uri().to_string();
        let endpoint = match url.strip_prefix("http://") {
            Some(rest) => Endpoint::from_shared(format!("https://{rest}"))?.tcp_nodelay(true),
            None => endpoint,
        };
        let endpoint = endpoint
            .connect_timeout(self.waits.connect)
            .timeout(self.waits.fetch)
            .http2_keep_alive_interval(self.waits.keep_alive)
            .keep_alive_timeout(self.waits.keep_alive)
            .keep_alive_while_idle(true);
        Ok(endpoint
            .tls_config(self.client())?
            .user_agent(self.agent.clone())?)
    }

    /// How long connections may take.
    pub(super) fn waits(&self) -> Waits {
        self.waits
    }

    /// What Ballista asks for each endpoint that it makes.
    pub(super) fn hook(&self) -> EndpointOverrideFn {
        let auth = self.clone();
        Arc::new(move |endpoint| auth.endpoint(endpoint))
    }

    /// Settings of sessions of driver and workers, whose shuffles are secured by them.
    pub(super) fn session(&self) -> SessionConfig {
        SessionConfig::new_with_ballista()
            .with_ballista_use_tls(true)
            .with_ballista_override_create_grpc_client_endpoint(self.hook())
    }

    /// Returns address and build of callers of another build that servers made of this one have refused.
    pub(super) fn strangers(&self) -> Vec<(String, String)> {
        let strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        strangers.iter().cloned().collect()
    }

    /// The only way in which a server is made.
    pub(super) fn server(
        &self,
    ) -> Result<Server<Stack<InterceptorLayer<SameRun>, NoLayer>>, ClusterError> {
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .client_ca_root(Certificate::from_pem(&self.authority))
            .timeout(self.waits.connect);
        let server = create_grpc_server(&GrpcServerConfig::default()).tls_config(tls);
        let check = SameRun {
            agent: self.agent.clone(),
            strangers: Arc::clone(&self.strangers),
        };
        Ok(server
            .map_err(ClusterError::tls)?
            .layer(InterceptorLayer::new(check)))
    }
}

/// Says in a refusal who is here.
const AGENT: &str = "klieg-agent";

fn agent(build: &str, run: &str) -> String {
    format!("klieg/{build}/{run}")
}

/// Returns build and run of whoever refused.
pub(super) fn who(refused: &Status) -> Option<(String, String)> {
    let agent = refused.metadata().get(AGENT)?.to_str().ok()?;
    let (build, run) = parts(agent)?;
    Some((build.to_owned(), run.to_owned()))
}

/// Build and run of an agent.
fn parts(agent: &str) -> Option<(&str, &str)> {
    agent.strip_prefix("klieg/")?.split_once('/')
}

/// Refuses requests of another build or run, for every service of a port.
#[derive(Clone)]
pub(super) struct SameRun {
    agent: String,
    strangers: Strangers,
}

impl SameRun {
    fn note(&self, agent: &str, request: &Request<()>) {
        let builds = (parts(agent), parts(&self.agent));
        let (Some((build, _)), Some((own, _))) = builds else {
            return;
        };
        let Some(address) = request.remote_addr().filter(|_| build != own) else {
            return;
        };
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if strangers.len() < STRANGERS_MAX {
            strangers.insert((address.ip().to_string(), build.to_owned()));
        }
    }
}

impl Interceptor for SameRun {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata().get("user-agent");
        let found = header.and_then(|header| header.to_str().ok()).unwrap_or("");
        // tonic adds its own name behind a blank.
        let found = found.split(' ').next().unwrap_or_default();
        if found == self.agent {
            return Ok(request);
        }
        self.note(found, &request);
        let mut refused = Status::failed_precondition("another build or another run of klieg");
        // Whoever gets here has a certificate of the pool: he may know for which run to call.
        if let Ok(agent) = self.agent.parse() {
            refused.metadata_mut().insert(AGENT, agent);
        }
        Err(refused)
    }
}

/// Tells this build from all others: the digest of the program, 16 digits.
pub(super) fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let mut digest = sha2::Sha256::new();
        let program = fs::File::open("/proc/self/exe");
        let copied =
            program.and_then(|mut program| std::io::copy(&mut program, &mut Writer(&mut digest)));
        let text = match copied {
            Ok(_) => digest.finalize(),
            Err(_) => sha2::Sha256::digest(env!("CARGO_PKG_VERSION")),
        };
        text.iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    })
}

struct Writer<'a>(&'a mut sha2::Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

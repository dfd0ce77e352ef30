//! Every call of every listening socket of a driver and of a worker, by those who must not get in.

use std::process::Command;

use ballista_core::serde::protobuf as proto;
use ballista_core::serde::protobuf::executor_grpc_client::ExecutorGrpcClient;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use tonic::Code;
use tonic::Status;
use tonic::Streaming;
use tonic::transport::Certificate;
use tonic::transport::Channel;
use tonic::transport::ClientTlsConfig;
use tonic::transport::Endpoint;
use tonic::transport::Identity;

/// The name in certificates of a run.
pub(crate) const NAME: &str = "pool.klieg.internal";

/// What somebody shows.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'a> {
    /// Nothing, in plain text.
    Plain,
    /// TLS without a certificate.
    Nameless,
    /// A certificate of an authority, PEM of certificate and key.
    Of(&'a str),
}

/// An authority of the same name as those of runs, PEM of certificate and key.
pub(crate) fn forged_authority() -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = authority().self_signed(&key).unwrap();
    format!("{}{}", certificate.pem(), key.serialize_pem())
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "klieg");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// Returns the certificate of an authority, and what issues others by its key.
pub(crate) fn issuer(pem: &str) -> (&str, Issuer<'static, KeyPair>) {
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE KEY").unwrap());
    let key = KeyPair::from_pem(key).unwrap();
    (certificate, Issuer::new(authority(), key))
}

fn identity(pem: &str) -> (Certificate, Identity) {
    let (of_authority, issuer) = issuer(pem);
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
    (Certificate::from_pem(of_authority), identity)
}

fn channel(port: u16, shown: Shown<'_>, agent: &str) -> Channel {
    let scheme = if matches!(shown, Shown::Plain) {
        "http"
    } else {
        "https"
    };
    let endpoint = Endpoint::from_shared(format!("{scheme}://127.0.0.1:{port}")).unwrap();
    let endpoint = endpoint.user_agent(agent.to_owned()).unwrap();
    let endpoint = endpoint.timeout(std::time::Duration::from_secs(5));
    let tls = ClientTlsConfig::new().domain_name(NAME);
    let endpoint = match shown {
        Shown::Plain => endpoint,
        Shown::Nameless => endpoint.tls_config(tls).unwrap(),
        Shown::Of(pem) => {
            let (authority, identity) = identity(pem);
            let tls = tls.ca_certificate(authority).identity(identity);
            endpoint.tls_config(tls).unwrap()
        }
    };
    endpoint.connect_lazy()
}

macro_rules! call {
    ($found:ident, $client:ident.$name:ident($message:ty)) => {
        let answer = $client.$name(<$message>::default()).await;
        $found.push((stringify!($name), answer.map(drop)));
    };
}

/// What came of a stream is known when its first message is.
async fn first<T>(answer: Result<tonic::Response<Streaming<T>>, Status>) -> Result<(), Status> {
    answer?.into_inner().message().await.map(drop)
}

macro_rules! stream {
    ($found:ident, $client:ident.$name:ident($message:expr)) => {
        let answer = $client.$name($message).await;
        $found.push((stringify!($name), first(answer).await));
    };
}

/// Makes every call there is; what came of each.
pub(crate) fn call_all(
    port: u16,
    shown: Shown<'_>,
    agent: &str,
) -> Vec<(&'static str, Result<(), Status>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = channel(port, shown, agent);
        let mut found = Vec::new();
        let mut driver = SchedulerGrpcClient::new(channel.clone());
        call!(found, driver.poll_work(proto::PollWorkParams));
        call!(
            found,
            driver.register_executor(proto::RegisterExecutorParams)
        );
        call!(
            found,
            driver.heart_beat_from_executor(proto::HeartBeatParams)
        );
        call!(
            found,
            driver.update_task_status(proto::UpdateTaskStatusParams)
        );
        call!(
            found,
            driver.create_update_session(proto::CreateUpdateSessionParams)
        );
        call!(found, driver.remove_session(proto::RemoveSessionParams));
        stream!(
            found,
            driver.execute_query_push(proto::ExecuteQueryParams::default())
        );
        call!(found, driver.execute_query(proto::ExecuteQueryParams));
        call!(found, driver.get_job_status(proto::GetJobStatusParams));
        call!(found, driver.get_job_metrics(proto::GetJobMetricsParams));
        call!(found, driver.executor_stopped(proto::ExecutorStoppedParams));
        call!(found, driver.cancel_job(proto::CancelJobParams));
        call!(found, driver.clean_job_data(proto::CleanJobDataParams));
        let mut worker = ExecutorGrpcClient::new(channel.clone());
        call!(found, worker.launch_task(proto::LaunchTaskParams));
        call!(
            found,
            worker.launch_multi_task(proto::LaunchMultiTaskParams)
        );
        call!(found, worker.stop_executor(proto::StopExecutorParams));
        call!(found, worker.cancel_tasks(proto::CancelTasksParams));
        call!(found, worker.remove_job_data(proto::RemoveJobDataParams));
        call_flight(&mut found, channel).await;
        found
    })
}

async fn call_flight(found: &mut Vec<(&'static str, Result<(), Status>)>, channel: Channel) {
    let mut flight = arrow_flight::flight_service_client::FlightServiceClient::new(channel);
    call!(
        found,
        flight.get_flight_info(arrow_flight::FlightDescriptor)
    );
    call!(
        found,
        flight.poll_flight_info(arrow_flight::FlightDescriptor)
    );
    call!(found, flight.get_schema(arrow_flight::FlightDescriptor));
    let nothing = || futures::stream::iter([arrow_flight::FlightData::default()]);
    let hello = futures::stream::iter([arrow_flight::HandshakeRequest::default()]);
    stream!(
        found,
        flight.list_flights(arrow_flight::Criteria::default())
    );
    stream!(found, flight.do_get(arrow_flight::Ticket::default()));
    stream!(found, flight.do_action(arrow_flight::Action::default()));
    stream!(found, flight.list_actions(arrow_flight::Empty::default()));
    stream!(found, flight.do_put(nothing()));
    stream!(found, flight.do_exchange(nothing()));
    stream!(found, flight.handshake(hello));
}

/// Ports on which processes listen, as the system tells it.
pub(crate) fn listening(processes: &[String]) -> Vec<u16> {
    let told = Command::new("ss").arg("-Htlnp").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let of_ours = |line: &&str| {
        processes
            .iter()
            .any(|process| line.contains(&format!("pid={process},")))
    };
    let port = |line: &str| -> u16 {
        let address = line.split_whitespace().nth(3).unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    told.lines().filter(of_ours).map(port).collect()
}

/// Nobody gets an answer to anything.
#[track_caller]
pub(crate) fn assert_closed(port: u16, shown: Shown<'_>, agent: &str, code: Option<Code>) {
    for (name, answer) in call_all(port, shown, agent) {
        let status = answer.expect_err(name);
        match code {
            Some(code) => assert_eq!(status.code(), code, "{name}: {status}"),
            // No handshake, so that no call was even heard.
            None => assert!(
                !matches!(
                    status.code(),
                    Code::Unimplemented | Code::FailedPrecondition | Code::NotFound
                ),
                "{name}: {status}"
            ),
        }
    }
}

/// Nobody gets an answer without a certificate, with a forged one, or of another build or run.
#[track_caller]
pub(crate) fn assert_closed_to_all(
    port: u16,
    (own, forged): (&str, &str),
    (build, run): (&str, &str),
) {
    let agent = |build: &str, run: &str| format!("klieg/{build}/{run}");
    for shown in [Shown::Plain, Shown::Nameless, Shown::Of(forged)] {
        assert_closed(port, shown, &agent(build, run), None);
    }
    let others = [
        agent("0123456789abcdef", run),
        agent(build, "20160708T000000Z-00000000"),
    ];
    for agent in others {
        let refused = Some(Code::FailedPrecondition);
        assert_closed(port, Shown::Of(own), &agent, refused);
    }
}

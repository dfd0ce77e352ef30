//! What a worker hands out of its shuffle folder, to the driver and to the other workers of the run.

use arrow_flight::Action;
use arrow_flight::ActionType;
use arrow_flight::Criteria;
use arrow_flight::Empty;
use arrow_flight::FlightData;
use arrow_flight::FlightDescriptor;
use arrow_flight::FlightInfo;
use arrow_flight::HandshakeRequest;
use arrow_flight::HandshakeResponse;
use arrow_flight::PollInfo;
use arrow_flight::PutResult;
use arrow_flight::SchemaResult;
use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightService;
use ballista_core::serde::decode_protobuf;
use ballista_core::serde::scheduler::Action as Asked;
use ballista_executor::flight_service::BallistaFlightService;
use futures::stream::BoxStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;

use crate::engine::cluster::lazy::is_plain;

/// Answers the one call that reads shuffles, as they lie in their files; a job whose name leads out of the folder is refused, since its
/// path is made of it.
pub(super) struct Shuffles(pub(super) BallistaFlightService);

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("this worker hands out shuffles"))
}

/// Refuses what is no question for a shuffle.
fn check(question: &[u8]) -> Result<(), Status> {
    match decode_protobuf(question) {
        Ok(Asked::FetchPartition { job_id, .. }) if is_plain(job_id.as_str()) => Ok(()),
        Ok(Asked::FetchPartition { .. }) => {
            Err(Status::invalid_argument("that is no name of a job"))
        }
        Err(error) => Err(Status::invalid_argument(error.to_string())),
    }
}

#[tonic::async_trait]
impl FlightService for Shuffles {
    type DoActionStream = <BallistaFlightService as FlightService>::DoActionStream;
    type DoExchangeStream = Items<FlightData>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type HandshakeStream = Items<HandshakeResponse>;
    type ListActionsStream = Items<ActionType>;
    type ListFlightsStream = Items<FlightInfo>;

    async fn do_get(&self, _: Request<Ticket>) -> Answer<Self::DoGetStream> {
        none()
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        check(&request.get_ref().body)?;
        self.0.do_action(request).await
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        none()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        none()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        none()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        none()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        none()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        none()
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        none()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        none()
    }
}

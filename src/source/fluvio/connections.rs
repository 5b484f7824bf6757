//! The connections to one cluster: to its controller through the client, to the servers of
//! partitions through the client's sockets.
//!
//! The client's own streams are not used: they skip the end of a batch that a full response
//! truncated, compute offsets after SmartModules by position, and commit an offset only together
//! with the reading of a record. So the requests of the protocol are sent from here.
//!
//! An offset is committed through a session of its own, which fetches a few bytes once and then
//! nothing more, so that neither reading nor committing waits for the other.
//!
//! # Invariants
//!
//! There is one connection to each server.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fluvio::config::FluvioClusterConfig;
use fluvio::dataplane::record::ReplicaKey;
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::spu::SpuSpec;
use fluvio::{Fluvio, Isolation};
use fluvio_socket::{
    AsyncResponse, ClientConfig, MultiplexerSocket, StreamSocket, VersionedSerialSocket,
};
use fluvio_spu_schema::server::consumer_offset::UpdateConsumerOffsetRequest;
use fluvio_spu_schema::server::fetch_offset::FetchOffsetsRequest;
use fluvio_spu_schema::server::stream_fetch::{DefaultStreamFetchRequest, OFFSET_MANAGEMENT_API};
use futures::StreamExt;
use tokio::sync::Mutex;

use super::cluster::{ClusterError, OffsetRange};
use super::errors::{checked, client_call, socket_call};

/// The bytes that a commit session fetches when it is opened.
const SESSION_FETCH_BYTES: i32 = 256;

/// The connections of one client.
pub(super) struct ClusterConnections {
    pub(super) fluvio: Fluvio,
    config: FluvioClusterConfig,
    pub(super) topic: String,
    servers: Mutex<HashMap<i32, StreamSocket>>,
    sessions: Mutex<BTreeMap<u32, Arc<CommitSession>>>,
}

/// The session through which offsets of one partition are committed.
struct CommitSession {
    socket: VersionedSerialSocket,
    number: u32,
    _stream: AsyncResponse<DefaultStreamFetchRequest>,
}

impl ClusterConnections {
    pub(super) async fn connect(
        config: FluvioClusterConfig,
        topic: &str,
    ) -> Result<Self, ClusterError> {
        let connected = client_call(Fluvio::connect_with_config(&config)).await;
        let fluvio = connected.map_err(|error| match error {
            ClusterError::Transient(why) => {
                ClusterError::Transient(format!("cannot connect to {:?}: {why}", config.endpoint))
            }
            lasting => lasting,
        })?;
        let topic = topic.to_owned();
        Ok(Self { fluvio, config, topic, servers: Mutex::default(), sessions: Mutex::default() })
    }

    /// A socket to the server that holds the partition.
    pub(super) async fn socket(
        &self,
        partition: u32,
    ) -> Result<VersionedSerialSocket, ClusterError> {
        let leader = self.leader(partition).await?;
        let mut servers = self.servers.lock().await;
        if servers.get(&leader).is_none_or(StreamSocket::is_stale) {
            servers.insert(leader, self.server(leader).await?);
        }
        let server = servers.get_mut(&leader).expect("it was put there");
        Ok(server.create_serial_socket().await)
    }

    /// The first response to a request for records, and the stream of those that follow.
    pub(super) async fn ask(
        socket: &VersionedSerialSocket,
        request: DefaultStreamFetchRequest,
    ) -> Result<AsyncResponse<DefaultStreamFetchRequest>, ClusterError> {
        /// Responses that may wait to be taken; after each, the next must be requested.
        const MAX_QUEUED_RESPONSES: usize = 4;
        let version = socket.lookup_version::<DefaultStreamFetchRequest>();
        let message = socket.new_request(request, version);
        socket_call(socket.create_stream(message, MAX_QUEUED_RESPONSES)).await
    }

    async fn leader(&self, partition: u32) -> Result<i32, ClusterError> {
        let partitions = client_call(async {
            let admin = self.fluvio.admin().await;
            admin.all::<PartitionSpec>().await
        });
        let name = format!("{}-{partition}", self.topic);
        let found = partitions.await?.into_iter().find(|partition| partition.name == name);
        let missing = || ClusterError::Transient(format!("there is no partition {partition}"));
        Ok(found.ok_or_else(missing)?.spec.leader)
    }

    async fn server(&self, number: i32) -> Result<StreamSocket, ClusterError> {
        let servers = client_call(async {
            let admin = self.fluvio.admin().await;
            admin.all::<SpuSpec>().await
        });
        let found = servers.await?.into_iter().find(|server| server.spec.id == number);
        let unknown = || ClusterError::Transient(format!("server {number} is not known"));
        let server = found.ok_or_else(unknown)?;
        let local = self.config.use_spu_local_address;
        let address = match (&server.spec.public_endpoint_local, local) {
            (Some(local), true) => format!("{}:{}", local.host, local.port),
            _ => server.spec.public_endpoint.addr(),
        };
        let connector = self.config.tls.clone().try_into();
        let connector =
            connector.map_err(|error| ClusterError::Permanent(format!("encryption: {error:#}")))?;
        let mut config = ClientConfig::new(address.clone(), connector, local);
        if let Some(client_id) = &self.config.client_id {
            config.set_client_id(client_id.clone());
        }
        let config = config.with_prefix_sni_domain(&server.name);
        let connected = socket_call(config.connect()).await.map_err(|error| {
            ClusterError::Transient(format!("cannot connect to {address:?}: {error}"))
        })?;
        let (socket, config, versions) = connected.split();
        Ok(StreamSocket::new(config, MultiplexerSocket::shared(socket), versions))
    }

    /// The offsets of a partition, from its server.
    pub(super) async fn offset_range(&self, partition: u32) -> Result<OffsetRange, ClusterError> {
        let socket = self.socket(partition).await?;
        let next_fetch = FetchOffsetsRequest::new(self.topic.clone(), partition);
        let response = socket_call(socket.send_receive(next_fetch)).await?;
        let place = ReplicaKey::new(self.topic.clone(), partition);
        let unknown = || ClusterError::Transient("the server does not know the partition".into());
        let response = response.find_partition(&place).ok_or_else(unknown)?;
        checked(&response.error_code)?;
        Ok(OffsetRange { start: response.start_offset.max(0), end: response.last_stable_offset })
    }

    /// Commits an offset.
    pub(super) async fn commit(
        &self,
        consumer: &str,
        partition: u32,
        offset: i64,
    ) -> Result<(), ClusterError> {
        let known = self.sessions.lock().await.get(&partition).map(Arc::clone);
        let session = match known {
            Some(session) => session,
            None => self.session(consumer, partition, offset).await?,
        };
        let next_fetch = UpdateConsumerOffsetRequest::new(offset, session.number);
        let response = socket_call(session.socket.send_receive(next_fetch)).await;
        let response = response.and_then(|response| checked(&response.error_code));
        if response.is_err() {
            self.sessions.lock().await.remove(&partition);
        }
        response
    }

    /// A new session; it gets its number with its first response.
    async fn session(
        &self,
        consumer: &str,
        partition: u32,
        offset: i64,
    ) -> Result<Arc<CommitSession>, ClusterError> {
        let offset_range = self.offset_range(partition).await?;
        if offset_range.end <= offset_range.start {
            let why = "the partition is empty, so no offset can be committed yet";
            return Err(ClusterError::Transient(why.into()));
        }
        let socket = self.socket(partition).await?;
        let version = socket.lookup_version::<DefaultStreamFetchRequest>().unwrap_or(0);
        if version < OFFSET_MANAGEMENT_API {
            let why = "this cluster is too old to store offsets of consumers: set `offset.strategy` to `none`";
            return Err(ClusterError::Permanent(why.into()));
        }
        let request = DefaultStreamFetchRequest::builder()
            .topic(self.topic.clone())
            .partition(partition)
            .fetch_offset(offset.clamp(offset_range.start, offset_range.end - 1))
            .isolation(Isolation::ReadCommitted)
            .max_bytes(SESSION_FETCH_BYTES)
            .consumer_id(Some(consumer.to_owned()))
            .build()
            .expect("all parts of the request are given");
        let mut stream = Self::ask(&socket, request).await?;
        let first = socket_call(async { stream.next().await.transpose() }).await?;
        let ended = || ClusterError::Transient("the connection ended".into());
        let first = first.ok_or_else(ended)?;
        checked(&first.partition.error_code)?;
        let session = Arc::new(CommitSession { socket, number: first.stream_id, _stream: stream });
        self.sessions.lock().await.insert(partition, Arc::clone(&session));
        Ok(session)
    }
}

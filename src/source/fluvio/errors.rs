//! Classifies errors of Fluvio's client and servers by what can be done about them.
//!
//! # Invariants
//!
//! Every request has a timeout.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use fluvio::FluvioError;
use fluvio::dataplane::link::ErrorCode;
use fluvio_socket::SocketError;
use tokio::time::timeout;

use super::cluster::ClusterError;

/// How long the cluster may take to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The client's own errors, which retain their cause.
pub(super) trait ClientError: Display + AsRef<dyn Error + Send + Sync> {}

impl<E: Display + AsRef<dyn Error + Send + Sync>> ClientError for E {}

/// The client's result, within a timeout.
pub(super) async fn client_call<T, E: ClientError>(
    next_fetch: impl Future<Output = Result<T, E>>,
) -> Result<T, ClusterError> {
    match timeout(REQUEST_TIMEOUT, next_fetch).await {
        Ok(answer) => answer.map_err(|error| classify(&error)),
        Err(_) => Err(ClusterError::Transient("no answer in time".into())),
    }
}

fn classify(told: &impl ClientError) -> ClusterError {
    let error = told.as_ref();
    let lasting = match error.downcast_ref::<FluvioError>() {
        Some(
            FluvioError::MinimumPlatformVersion { .. }
            | FluvioError::MaximumPlatformVersion { .. }
            | FluvioError::ClientConfig(_)
            | FluvioError::ConsumerConfig(_),
        ) => true,
        Some(_) => false,
        None => error.downcast_ref::<ErrorCode>().is_some_and(is_lasting),
    };
    // The alternate form shows the causes too; each alone may say little.
    let why = format!("{told:#}");
    if let Some(code @ (ErrorCode::OffsetEvicted { .. } | ErrorCode::TopicDeleted)) =
        error.downcast_ref::<ErrorCode>()
    {
        return of_code(code);
    }
    if lasting { ClusterError::Permanent(why) } else { ClusterError::Transient(why) }
}

fn is_lasting(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::PermissionDenied
            | ErrorCode::SmartModuleNotFound { .. }
            | ErrorCode::SmartModuleInvalid { .. }
            | ErrorCode::SmartModuleRuntimeError(_)
            | ErrorCode::SmartModuleChainInitError(_)
            | ErrorCode::TopicInvalidName
    )
}

/// Classifies an error code of the cluster.
pub(super) fn of_code(code: &ErrorCode) -> ClusterError {
    match code {
        ErrorCode::OffsetEvicted { next_available, .. } => {
            ClusterError::OffsetOutOfRange { next: *next_available }
        }
        ErrorCode::TopicDeleted => ClusterError::Deleted,
        code if is_lasting(code) => ClusterError::Permanent(code.to_string()),
        code => ClusterError::Transient(code.to_string()),
    }
}

/// The result of a response that only reports success or an error code.
pub(super) fn checked(code: &ErrorCode) -> Result<(), ClusterError> {
    match code {
        ErrorCode::None => Ok(()),
        code => Err(of_code(code)),
    }
}

/// A socket's result, within a timeout.
pub(super) async fn socket_call<T>(
    next_fetch: impl Future<Output = Result<T, SocketError>>,
) -> Result<T, ClusterError> {
    match timeout(REQUEST_TIMEOUT, next_fetch).await {
        Ok(answer) => answer.map_err(|error| ClusterError::Transient(error.to_string())),
        Err(_) => Err(ClusterError::Transient("no answer in time".into())),
    }
}

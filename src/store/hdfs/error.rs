//! Errors of HDFS as errors of files: the kind says what to do, the text what happened.

use std::io;

use hdfs_native::HdfsError;

/// Returns the error with the kind that decides what is done about it.
pub(super) fn io_error(error: HdfsError) -> io::Error {
    use io::ErrorKind as Kind;
    match error {
        HdfsError::IOError(error) => of_connection(&error),
        HdfsError::FileNotFound(path) => {
            io::Error::new(Kind::NotFound, format!("{path}: no such file or folder"))
        }
        HdfsError::AlreadyExists(text) => io::Error::new(Kind::AlreadyExists, first_line(&text)),
        HdfsError::RPCError(class, text) | HdfsError::FatalRPCError(class, text) => {
            of_class(&class, &text)
        }
        HdfsError::GSSAPIError(_, _, text) => denied(&format!("Kerberos: {}", first_line(&text))),
        HdfsError::SASLError(text) => denied(&format!("Kerberos: {}", first_line(&text))),
        HdfsError::NoSASLMechanism => denied("Kerberos: no mechanism that both sides know"),
        HdfsError::IsADirectoryError(path) => {
            io::Error::new(Kind::IsADirectory, format!("{path}: is a folder"))
        }
        HdfsError::InvalidPath(text) => io::Error::new(Kind::InvalidInput, first_line(&text)),
        other => io::Error::other(first_line(&other.to_string())),
    }
}

/// Reading, unlike a call of the NameNode, fails where DataNodes are gone for a while.
pub(super) fn read_error(error: HdfsError) -> io::Error {
    match error {
        HdfsError::DataTransferError(text) => {
            // Behind it stands all that is known of every DataNode.
            let text = text.split(": [").next().unwrap_or_default();
            io::Error::new(io::ErrorKind::ConnectionReset, first_line(text))
        }
        other => io_error(other),
    }
}

fn denied(text: &str) -> io::Error {
    let remedy = "kinit, or set hadoop.principal and hadoop.keytab";
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{text}; {remedy}"))
}

fn of_connection(error: &io::Error) -> io::Error {
    let text = error.to_string();
    let is_hung_up = matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
    );
    let hint = if is_hung_up || text.contains("RPC listener disconnected") {
        "; is this the NameNode's RPC port, and does hadoop.security.authentication agree with the cluster's?"
    } else if error.kind() == io::ErrorKind::ConnectionRefused {
        "; nothing listens there: is the NameNode up, and is this its RPC port?"
    } else {
        ""
    };
    let kind = match error.kind() {
        io::ErrorKind::BrokenPipe => io::ErrorKind::ConnectionReset,
        // A connection that ended, or a name that does not resolve: nothing that this user could not do.
        io::ErrorKind::Other | io::ErrorKind::UnexpectedEof => io::ErrorKind::HostUnreachable,
        _ if text.contains("lookup") => io::ErrorKind::HostUnreachable,
        kind => kind,
    };
    io::Error::new(kind, format!("{text}{hint}"))
}

/// By the Java class that the NameNode names.
fn of_class(class: &str, text: &str) -> io::Error {
    use io::ErrorKind as Kind;
    let name = class.rsplit('.').next().unwrap_or(class);
    let kind = match name {
        "FileNotFoundException" => Kind::NotFound,
        "SaslException" => return refused(text),
        "AccessControlException" | "AuthorizationException" | "InvalidToken" => {
            Kind::PermissionDenied
        }
        "FileAlreadyExistsException" | "AlreadyBeingCreatedException" => Kind::AlreadyExists,
        "SafeModeException" | "RetriableException" | "RecoveryInProgressException" => {
            Kind::ResourceBusy
        }
        "StandbyException" | "ObserverRetryOnActiveException" => Kind::HostUnreachable,
        "DSQuotaExceededException"
        | "NSQuotaExceededException"
        | "QuotaExceededException"
        | "QuotaByStorageTypeExceededException" => Kind::QuotaExceeded,
        "PathIsNotEmptyDirectoryException" => Kind::DirectoryNotEmpty,
        "InvalidPathException" => Kind::InvalidInput,
        "ParentNotDirectoryException" => Kind::NotADirectory,
        _ => Kind::Other,
    };
    io::Error::new(kind, format!("{} ({name})", first_line(text)))
}

/// What a server says of a ticket that it does not take: not why.
fn refused(text: &str) -> io::Error {
    let hint = "the server does not take the ticket: do the clocks differ by more than five minutes (date), is it of this realm (klist)?";
    denied(&format!("Kerberos: {}; {hint}", first_line(text)))
}

/// Java puts the stack behind the message.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

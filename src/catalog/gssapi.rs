//! The few calls of GSS-API (RFC 2743, RFC 2744) that a SASL login needs, from the machine's `libgssapi_krb5`, loaded when it is
//! needed: klieg starts on machines without Kerberos. Unsafe code, in which nothing depends on what a peer sends but the bytes and
//! lengths of buffers that the library itself made.
#![expect(unsafe_code, reason = "calls of a C library")]

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_void;
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use libloading::Library;

/// Present on Debian and Red Hat alike.
const LIBRARY: &str = "libgssapi_krb5.so.2";
/// 1.2.840.113554.1.2.2, the mechanism Kerberos 5 (RFC 1964).
const KRB5: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02];
/// 1.2.840.113554.1.2.2.1, the name of a principal (RFC 1964, 2.1.1).
const PRINCIPAL_NAME: [u8; 10] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02, 0x01];
/// Mutual authentication, replay detection, sequence, confidentiality, integrity (RFC 2744, 5.19).
const FLAGS: u32 = 2 | 4 | 8 | 16 | 32;
const INITIATE: i32 = 1;
const CONTINUE_NEEDED: u32 = 1;
const MECHANISM_CODE: i32 = 2;

#[repr(C)]
struct Buffer {
    length: usize,
    value: *mut c_void,
}

#[repr(C)]
struct Oid {
    length: u32,
    elements: *const c_void,
}

#[repr(C)]
struct OidSet {
    count: usize,
    elements: *const Oid,
}

#[repr(C)]
struct StoreElement {
    key: *const c_char,
    value: *const c_char,
}

#[repr(C)]
struct CredentialStore {
    count: u32,
    elements: *const StoreElement,
}

type Handle = *mut c_void;

type ImportName = unsafe extern "C" fn(*mut u32, *const Buffer, *const Oid, *mut Handle) -> u32;
type AcquireFrom = unsafe extern "C" fn(
    *mut u32,
    Handle,
    u32,
    *const OidSet,
    i32,
    *const CredentialStore,
    *mut Handle,
    *mut Handle,
    *mut u32,
) -> u32;
type InitContext = unsafe extern "C" fn(
    *mut u32,
    Handle,
    *mut Handle,
    Handle,
    *const Oid,
    u32,
    u32,
    Handle,
    *const Buffer,
    *mut *mut Oid,
    *mut Buffer,
    *mut u32,
    *mut u32,
) -> u32;
type Wrap =
    unsafe extern "C" fn(*mut u32, Handle, i32, u32, *const Buffer, *mut i32, *mut Buffer) -> u32;
type Unwrap =
    unsafe extern "C" fn(*mut u32, Handle, *const Buffer, *mut Buffer, *mut i32, *mut u32) -> u32;
type DisplayStatus =
    unsafe extern "C" fn(*mut u32, u32, i32, *const Oid, *mut u32, *mut Buffer) -> u32;
type ReleaseBuffer = unsafe extern "C" fn(*mut u32, *mut Buffer) -> u32;
type ReleaseHandle = unsafe extern "C" fn(*mut u32, *mut Handle) -> u32;
type DeleteContext = unsafe extern "C" fn(*mut u32, *mut Handle, *mut Buffer) -> u32;

/// The library; its functions live as long as the process.
struct Calls {
    import_name: ImportName,
    acquire_from: AcquireFrom,
    init_context: InitContext,
    wrap: Wrap,
    unwrap: Unwrap,
    display_status: DisplayStatus,
    release_buffer: ReleaseBuffer,
    release_name: ReleaseHandle,
    release_credential: ReleaseHandle,
    delete_context: DeleteContext,
    _library: Library,
}

impl Calls {
    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: the library's initialisers are those of MIT Kerberos, and the types above are those of its header.
        unsafe {
            let library = Library::new(LIBRARY)?;
            Ok(Self {
                import_name: *library.get::<ImportName>(b"gss_import_name\0")?,
                acquire_from: *library.get::<AcquireFrom>(b"gss_acquire_cred_from\0")?,
                init_context: *library.get::<InitContext>(b"gss_init_sec_context\0")?,
                wrap: *library.get::<Wrap>(b"gss_wrap\0")?,
                unwrap: *library.get::<Unwrap>(b"gss_unwrap\0")?,
                display_status: *library.get::<DisplayStatus>(b"gss_display_status\0")?,
                release_buffer: *library.get::<ReleaseBuffer>(b"gss_release_buffer\0")?,
                release_name: *library.get::<ReleaseHandle>(b"gss_release_name\0")?,
                release_credential: *library.get::<ReleaseHandle>(b"gss_release_cred\0")?,
                delete_context: *library.get::<DeleteContext>(b"gss_delete_sec_context\0")?,
                _library: library,
            })
        }
    }

    fn get() -> io::Result<&'static Self> {
        static CALLS: OnceLock<Result<Calls, String>> = OnceLock::new();
        let calls = CALLS.get_or_init(|| Self::load().map_err(|error| error.to_string()));
        calls.as_ref().map_err(|text| {
            let remedy = "install it (Debian: libgssapi-krb5-2, Red Hat: krb5-libs)";
            io::Error::new(io::ErrorKind::Unsupported, format!("{text}; {remedy}"))
        })
    }

    /// The bytes of a buffer that the library made; it is given back.
    fn take(&self, mut buffer: Buffer) -> Vec<u8> {
        let mut minor = 0;
        // SAFETY: the library made the buffer with this length, and nobody uses it afterwards.
        unsafe {
            let bytes = match buffer.value.is_null() {
                true => Vec::new(),
                false => std::slice::from_raw_parts(buffer.value.cast(), buffer.length).to_vec(),
            };
            (self.release_buffer)(&raw mut minor, &raw mut buffer);
            bytes
        }
    }

    /// Fails with what the library says of a status.
    fn check(&self, major: u32, minor: u32, what: &str) -> io::Result<()> {
        if major >> 16 == 0 {
            return Ok(());
        }
        let (mut status, mut more, mut text) = (0, 0, empty());
        let mechanism = oid(&KRB5);
        // SAFETY: all pointers are to values of this function.
        unsafe {
            (self.display_status)(
                &raw mut status,
                minor,
                MECHANISM_CODE,
                &raw const mechanism,
                &raw mut more,
                &raw mut text,
            );
        }
        let text = String::from_utf8_lossy(&self.take(text)).into_owned();
        let remedy = "kinit, or set hadoop.principal and hadoop.keytab";
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("Kerberos: {what}: {text} ({major:x}); {remedy}"),
        ))
    }
}

fn empty() -> Buffer {
    Buffer {
        length: 0,
        value: ptr::null_mut(),
    }
}

fn buffer(bytes: &[u8]) -> Buffer {
    Buffer {
        length: bytes.len(),
        value: bytes.as_ptr().cast_mut().cast(),
    }
}

fn oid(bytes: &'static [u8]) -> Oid {
    Oid {
        length: u32::try_from(bytes.len()).unwrap_or(0),
        elements: bytes.as_ptr().cast(),
    }
}

/// A principal's name.
struct Name(Handle);

impl Name {
    fn import(calls: &Calls, principal: &str) -> io::Result<Self> {
        let (mut minor, mut name) = (0, ptr::null_mut());
        let (text, kind) = (buffer(principal.as_bytes()), oid(&PRINCIPAL_NAME));
        // SAFETY: all pointers are to values of this function.
        let major = unsafe {
            (calls.import_name)(
                &raw mut minor,
                &raw const text,
                &raw const kind,
                &raw mut name,
            )
        };
        calls.check(major, minor, principal)?;
        Ok(Self(name))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Ok(calls) = Calls::get() {
            let mut minor = 0;
            // SAFETY: the library made the name, and nobody uses it afterwards.
            unsafe { (calls.release_name)(&raw mut minor, &raw mut self.0) };
        }
    }
}

/// Whose keytab is used in the place of the ticket cache.
#[derive(Clone, Debug)]
pub(super) struct Keytab {
    pub(super) principal: String,
    pub(super) path: PathBuf,
}

/// Returns how long the ticket of a keytab, with its principal, or of the ticket cache lives.
///
/// # Errors
/// There is none, it has run out, or the library is missing.
pub fn ticket_life(keytab: Option<(PathBuf, String)>) -> io::Result<Duration> {
    let calls = Calls::get()?;
    let keytab = keytab.map(|(path, principal)| Keytab { principal, path });
    let (_, seconds) = Credential::acquire(calls, keytab.as_ref())?;
    Ok(Duration::from_secs(seconds.into()))
}

/// Tickets of a keytab or of the cache.
struct Credential(Handle);

impl Credential {
    /// Those of the cache where there is no keytab; with the seconds that they live.
    fn acquire(calls: &Calls, keytab: Option<&Keytab>) -> io::Result<(Self, u32)> {
        if let Some(keytab) = keytab {
            return Self::of_keytab(calls, keytab);
        }
        let (mut minor, mut credential, mut seconds) = (0, ptr::null_mut(), 0);
        // SAFETY: all pointers are to values of this function.
        let major = unsafe {
            (calls.acquire_from)(
                &raw mut minor,
                ptr::null_mut(),
                u32::MAX,
                ptr::null(),
                INITIATE,
                ptr::null(),
                &raw mut credential,
                ptr::null_mut(),
                &raw mut seconds,
            )
        };
        calls.check(major, minor, "ticket")?;
        Ok((Self(credential), seconds))
    }

    fn of_keytab(calls: &Calls, keytab: &Keytab) -> io::Result<(Self, u32)> {
        let name = Name::import(calls, &keytab.principal)?;
        let text = |text: String| CString::new(text).map_err(io::Error::from);
        let texts = [
            (
                text("client_keytab".to_owned())?,
                text(keytab.path.display().to_string())?,
            ),
            (text("ccache".to_owned())?, text("MEMORY:klieg".to_owned())?),
        ];
        let elements = texts.each_ref().map(|(key, value)| StoreElement {
            key: key.as_ptr(),
            value: value.as_ptr(),
        });
        let store = CredentialStore {
            count: 2,
            elements: elements.as_ptr(),
        };
        let mechanism = oid(&KRB5);
        let mechanisms = OidSet {
            count: 1,
            elements: &raw const mechanism,
        };
        let (mut minor, mut credential, mut seconds) = (0, ptr::null_mut(), 0);
        // SAFETY: all pointers are to values that live until the call has returned.
        let major = unsafe {
            (calls.acquire_from)(
                &raw mut minor,
                name.0,
                u32::MAX,
                &raw const mechanisms,
                INITIATE,
                &raw const store,
                &raw mut credential,
                ptr::null_mut(),
                &raw mut seconds,
            )
        };
        calls.check(major, minor, &keytab.path.display().to_string())?;
        Ok((Self(credential), seconds))
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        if let Ok(calls) = Calls::get() {
            let mut minor = 0;
            // SAFETY: the library made it, and nobody uses it afterwards.
            unsafe { (calls.release_credential)(&raw mut minor, &raw mut self.0) };
        }
    }
}

/// A security context with a service.
pub(super) struct Context {
    calls: &'static Calls,
    service: Name,
    credential: Option<Credential>,
    context: Handle,
}

// SAFETY: MIT Kerberos lets a context be used by one thread after another; it is never shared without a lock.
unsafe impl Send for Context {}

impl Context {
    /// Starts a context with a service, such as `hive/host@REALM`, with the tickets of the cache or of a keytab.
    pub(super) fn new(service: &str, keytab: Option<&Keytab>) -> io::Result<Self> {
        let calls = Calls::get()?;
        Ok(Self {
            calls,
            service: Name::import(calls, service)?,
            credential: keytab
                .map(|keytab| Credential::of_keytab(calls, keytab))
                .transpose()?
                .map(|(credential, _)| credential),
            context: ptr::null_mut(),
        })
    }

    /// Takes the peer's token, gives ours, and whether the context is complete.
    pub(super) fn step(&mut self, token: &[u8]) -> io::Result<(Vec<u8>, bool)> {
        let (mut minor, mut out) = (0, empty());
        let (mechanism, input) = (oid(&KRB5), buffer(token));
        let credential = self.credential.as_ref();
        // SAFETY: all pointers are to values that live until the call has returned.
        let major = unsafe {
            (self.calls.init_context)(
                &raw mut minor,
                credential.map_or(ptr::null_mut(), |credential| credential.0),
                &raw mut self.context,
                self.service.0,
                &raw const mechanism,
                FLAGS,
                0,
                ptr::null_mut(),
                &raw const input,
                ptr::null_mut(),
                &raw mut out,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        let out = self.calls.take(out);
        self.calls.check(major, minor, "login")?;
        Ok((out, major & CONTINUE_NEEDED == 0))
    }

    /// Signs bytes, and hides them where `hide` is true.
    pub(super) fn wrap(&self, bytes: &[u8], hide: bool) -> io::Result<Vec<u8>> {
        let (mut minor, mut state, mut out) = (0, 0, empty());
        let input = buffer(bytes);
        // SAFETY: all pointers are to values of this function.
        let major = unsafe {
            (self.calls.wrap)(
                &raw mut minor,
                self.context,
                i32::from(hide),
                0,
                &raw const input,
                &raw mut state,
                &raw mut out,
            )
        };
        let out = self.calls.take(out);
        self.calls.check(major, minor, "wrap")?;
        Ok(out)
    }

    /// Checks and opens what the peer has wrapped.
    pub(super) fn unwrap(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut minor, mut state, mut quality, mut out) = (0, 0, 0, empty());
        let input = buffer(bytes);
        // SAFETY: all pointers are to values of this function.
        let major = unsafe {
            (self.calls.unwrap)(
                &raw mut minor,
                self.context,
                &raw const input,
                &raw mut out,
                &raw mut state,
                &raw mut quality,
            )
        };
        let out = self.calls.take(out);
        self.calls.check(major, minor, "unwrap")?;
        Ok(out)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut minor = 0;
        // SAFETY: the library made it, and nobody uses it afterwards.
        unsafe {
            (self.calls.delete_context)(&raw mut minor, &raw mut self.context, ptr::null_mut())
        };
    }
}

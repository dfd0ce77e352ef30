//! A port of this machine that leads to another until it is cut.

use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;

/// Carries connections; none any more, old or new, once it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    carried: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Proxy {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            carried: Arc::new(Mutex::new(Some(Vec::new()))),
        };
        let carried = Arc::clone(&proxy.carried);
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let mut carried = carried.lock().unwrap();
                let Some(carried) = carried.as_mut() else {
                    return;
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        drop(std::io::copy(&mut from, &mut to));
                        drop(to.shutdown(Shutdown::Both));
                    });
                }
                carried.extend([client, server]);
            }
        });
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let carried = self.carried.lock().unwrap().take();
        for stream in carried.into_iter().flatten() {
            drop(stream.shutdown(Shutdown::Both));
        }
        // The thread that listens sees that it is over.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

//! Images that requests name by an address: fetched where the server was told so, and never from addresses
//! that only this machine or its network can reach.

use crate::{error::Result, hub};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use ureq::{
    Agent,
    config::Config,
    http::Uri,
    tls::TlsConfig,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

/// How long an image may take, its redirections included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most redirections.
const REDIRECTIONS: u32 = 3;

/// Fetches images.
pub struct RemoteImages {
    agent: Agent,
    max_bytes: u64,
}

impl RemoteImages {
    /// `hosts`: which hosts images may come from; `*` for all that are public.
    ///
    /// # Errors
    /// If the trusted certificates cannot be read.
    pub fn new(hosts: &[String], max_bytes: usize) -> Result<Self> {
        Self::reaching(hosts, max_bytes, is_public)
    }

    fn reaching(hosts: &[String], max_bytes: usize, reaches: fn(IpAddr) -> bool) -> Result<Self> {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(REDIRECTIONS)
            // A proxy would reach what this machine must not.
            .proxy(None)
            .user_agent(concat!("wgpt/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(hub::roots()?).build())
            .build();
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let allowed = Allowed { hosts, reaches, inner: DefaultResolver::default() };
        let agent = Agent::with_parts(config, DefaultConnector::default(), allowed);
        Ok(Self { agent, max_bytes: max_bytes as u64 })
    }

    /// The bytes at an address. Blocks.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let mut response = self.agent.get(url).call().map_err(|e| e.to_string())?;
        let body = response.body_mut().with_config().limit(self.max_bytes);
        body.read_to_vec().map_err(|e| e.to_string())
    }
}

/// Finds the addresses of hosts that images may come from, also where one redirects to another.
struct Allowed {
    hosts: Vec<String>,
    reaches: fn(IpAddr) -> bool,
    inner: DefaultResolver,
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.hosts)
    }
}

impl Resolver for Allowed {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let refused = |what: String| ureq::Error::Other(what.into());
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        if !self.hosts.iter().any(|allowed| allowed == "*" || *allowed == host) {
            return Err(refused(format!("{host} is not among --image-hosts")));
        }
        let found = self.inner.resolve(uri, config, timeout)?;
        let mut public = self.empty();
        found.iter().filter(|address| (self.reaches)(address.ip())).for_each(|address| public.push(*address));
        match public.is_empty() {
            false => Ok(public),
            true => Err(refused(format!("{host} is not a public address"))),
        }
    }
}

/// Whether the internet routes an address: no network of its own, no machine itself.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let is_odd = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || ip.is_multicast()
                || ip == Ipv4Addr::BROADCAST;
            // This network; carriers' own; protocols'; benchmarks'; reserved (RFC 6890).
            !is_odd
                && a != 0
                && !(a == 100 && b & 0xc0 == 64)
                && !(a == 192 && b == 0 && c == 0)
                && !(a == 198 && b & 0xfe == 18)
                && a < 240
        }
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Global unicast addresses, without documentation, and without tunnels, which hold an IPv4 address.
    a & 0xe000 == 0x2000
        && !(a == 0x2001 && (b == 0x0db8 || b < 0x0200))
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    #[test]
    fn what_only_this_network_reaches_is_not_public() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().expect("an address")), "{private}");
        }
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
    }

    /// A server that answers every request with this.
    fn server(answer: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    #[test]
    fn images_come_from_listed_hosts_alone() {
        let body = "x".repeat(1000);
        let whole = server(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let url = format!("http://localhost:{whole}/a.png");
        let fetch = |hosts: &[&str], most, reaches, url: &str| {
            let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
            RemoteImages::reaching(&hosts, most, reaches).expect("certificates").fetch(url)
        };
        let all: fn(IpAddr) -> bool = |_| true;
        assert_eq!(fetch(&["localhost"], 2000, all, &url), Ok(body.clone().into_bytes()));
        assert_eq!(fetch(&["*"], 2000, all, &url), Ok(body.into_bytes()));
        for (hosts, most, reaches, word) in [
            (["example.org"], 2000, all, "--image-hosts"),
            (["*"], 2000, is_public as fn(IpAddr) -> bool, "public"),
            (["localhost"], 2000, is_public, "public"),
            (["*"], 999, all, "limit"),
        ] {
            let refused = fetch(&hosts, most, reaches, &url).expect_err("refused");
            assert!(refused.contains(word), "{refused}");
        }
        // A redirection is judged as what was asked for.
        let to =
            format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{whole}/\r\nContent-Length: 0\r\n\r\n");
        let redirecting = format!("http://localhost:{}/", server(to));
        let refused = fetch(&["localhost"], 2000, all, &redirecting).expect_err("another host");
        assert!(refused.contains("127.0.0.1 is not among"), "{refused}");
        let missing = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned());
        let refused = fetch(&["*"], 2000, all, &format!("http://localhost:{missing}/")).expect_err("missing");
        assert!(refused.contains("404"), "{refused}");
    }
}

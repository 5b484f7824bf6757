//! Browser, operating system and kind of device from a user agent, under the names that reports
//! commonly use.
//!
//! Woothee parses the agents and has its data in the crate. Here its names are translated, and what
//! it does not distinguish (tablets, embedded browsers) is detected. Results are cached: one agent
//! string comes with many calls, and parsing costs more than the rest of a call's planning.

use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;
use woothee::parser::{Parser, WootheeResult};

/// Agent strings in the cache.
const CACHE_CAPACITY: usize = 2_048;
/// Characters of an agent string that are parsed.
const MAX_USER_AGENT_LEN: usize = 1_024;

static SEEN: LazyLock<Cache<Box<str>, Arc<Agent>>> = LazyLock::new(|| Cache::new(CACHE_CAPACITY));

/// What a user agent contains.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Agent {
    /// `Mobile Safari`, `Chrome`, …
    pub(super) family: Option<String>,
    /// `17.6`, …
    pub(super) version: Option<String>,
    /// `iOS 17.6.1`, `Windows 10`, …
    pub(super) os: Option<String>,
    /// `mobile`, `tablet`, `desktop`.
    pub(super) device: Option<&'static str>,
}

/// Parses a user agent, or returns the cached result.
pub(super) fn parse(user_agent: &str) -> Arc<Agent> {
    let user_agent = super::limits::truncate(user_agent, MAX_USER_AGENT_LEN);
    if let Some(agent) = SEEN.get(user_agent) {
        return agent;
    }
    let agent = Arc::new(read(user_agent));
    SEEN.insert(user_agent.into(), Arc::clone(&agent));
    agent
}

/// The common name of a browser that calls itself `brand`.
pub(super) fn product(brand: &str) -> &str {
    match brand {
        "Google Chrome" | "Chromium" => "Chrome",
        "Microsoft Edge" => "Edge",
        other => other,
    }
}

fn read(user_agent: &str) -> Agent {
    let Some(found) = Parser::new().parse(user_agent) else {
        return Agent::default();
    };
    let (family, version) = browser(user_agent, &found);
    Agent { family, version, os: system(user_agent, &found), device: device(user_agent, &found) }
}

fn known(word: &str) -> Option<&str> {
    (!word.is_empty() && word != "UNKNOWN").then_some(word)
}

fn browser(user_agent: &str, found: &WootheeResult<'_>) -> (Option<String>, Option<String>) {
    if found.category == "misc" {
        return (None, None);
    }
    // Tokens next to another browser's name, which would be found without them.
    for (token, family) in [
        ("MiuiBrowser/", "MIUI Browser"),
        ("DuckDuckGo/", "DuckDuckGo"),
        ("HuaweiBrowser/", "Huawei Browser"),
        ("UCBrowser/", "UC Browser"),
    ] {
        if let Some(version) = version_after(user_agent, token) {
            return (Some(family.into()), Some(version.into()));
        }
    }
    let apple_mobile = matches!(found.os, "iPhone" | "iPad" | "iPod");
    match found.name {
        "Safari" if apple_mobile => (Some("Mobile Safari".into()), version(found)),
        "Webview" => match version_after(user_agent, "Chrome/") {
            Some(version) => (Some("Chrome Mobile WebView".into()), Some(version.into())),
            None => (Some("WebView".into()), version(found)),
        },
        "SamsungBrowser" => (Some("Samsung Internet".into()), version(found)),
        name => (known(name).map(str::to_owned), version(found)),
    }
}

fn version(found: &WootheeResult<'_>) -> Option<String> {
    known(found.version).map(str::to_owned)
}

fn version_after<'a>(user_agent: &'a str, token: &str) -> Option<&'a str> {
    let (_, rest) = user_agent.split_once(token)?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

fn system(user_agent: &str, found: &WootheeResult<'_>) -> Option<String> {
    let name = match known(found.os)? {
        "iPhone" | "iPad" | "iPod" => "iOS",
        "Mac OSX" => "Mac OS",
        "ChromeOS" => return Some("Chrome OS".into()),
        "Linux" if user_agent.contains("Ubuntu") => "Ubuntu",
        // The name contains the version already.
        windows if windows.starts_with("Windows") => return Some(windows.into()),
        name => name,
    };
    Some(match known(&found.os_version) {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    })
}

fn device(user_agent: &str, found: &WootheeResult<'_>) -> Option<&'static str> {
    let tablet = found.os == "iPad"
        || user_agent.contains("Tablet")
        || (found.os == "Android" && !user_agent.contains("Mobile"));
    match found.category {
        "smartphone" | "mobilephone" if tablet => Some("tablet"),
        "smartphone" | "mobilephone" => Some("mobile"),
        "pc" => Some("desktop"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Family, version, system and kind of device; `-` is nothing. Then the agent.
    const AGENTS: &str = r"
Mobile Safari | 17.6 | iOS 17.6.1 | mobile | Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1
Firefox | 129.0 | Ubuntu | desktop | Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:129.0) Gecko/20100101 Firefox/129.0
Firefox | 129.0 | Linux | desktop | Mozilla/5.0 (X11; Linux x86_64; rv:129.0) Gecko/20100101 Firefox/129.0
Chrome | 128.0.6613.88 | Android 14 | mobile | Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.6613.88 Mobile Safari/537.36
Edge | 127.0.2651.105 | Windows 10 | desktop | Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36 Edg/127.0.2651.105
Chrome | 128.0.0.0 | Mac OS 10.15.7 | desktop | Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36
Safari | 18.1 | Mac OS 10.15.7 | desktop | Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15
Mobile Safari | 16.6 | iOS 16.7 | tablet | Mozilla/5.0 (iPad; CPU OS 16_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1
Chrome | 126.0.6478.153 | iOS 17.5 | mobile | Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0.6478.153 Mobile/15E148 Safari/604.1
Firefox | 128.0 | iOS 17.5 | mobile | Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/128.0 Mobile/15E148 Safari/605.1.15
Samsung Internet | 25.0 | Android 13 | mobile | Mozilla/5.0 (Linux; Android 13; SM-S901B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36
Opera | 112.0.0.0 | Windows 10 | desktop | Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 OPR/112.0.0.0
Firefox | 129.0 | Android 14 | mobile | Mozilla/5.0 (Android 14; Mobile; rv:129.0) Gecko/129.0 Firefox/129.0
Chrome | 127.0.0.0 | Android 13 | tablet | Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36
Chrome | 127.0.0.0 | Chrome OS | desktop | Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36
Edge | 127.0.0.0 | Android 10 | mobile | Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Mobile Safari/537.36 EdgA/127.0.0.0
Vivaldi | 6.8.3381.46 | Windows 10 | desktop | Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Vivaldi/6.8.3381.46
Yandex Browser | 24.6.0.0 | Windows 10 | desktop | Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 YaBrowser/24.6.0.0 Safari/537.36
Internet Explorer | 11.0 | Windows 10 | desktop | Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko
Chrome Mobile WebView | 126.0.6478.71 | Android 14 | mobile | Mozilla/5.0 (Linux; Android 14; Pixel 7 Build/UP1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/126.0.6478.71 Mobile Safari/537.36
MIUI Browser | 14.10 | Android 13 | mobile | Mozilla/5.0 (Linux; U; Android 13; en-us; Redmi) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/112.0.5615.136 Mobile Safari/537.36 XiaoMi/MiuiBrowser/14.10
Edge | 126.0.2592.80 | iOS 17.5 | mobile | Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) EdgiOS/126.0.2592.80 Version/17.0 Mobile/15E148 Safari/604.1
Googlebot | - | - | - | Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)
- | - | - | - | curl/8.5.0
";

    #[test]
    fn current_user_agents_are_recognised() {
        // Current agents are parsed as the table says.
        let mut rows = 0;
        for row in AGENTS.lines().filter(|line| !line.is_empty()) {
            let [family, version, os, device, user_agent] =
                row.splitn(5, " | ").collect::<Vec<_>>()[..]
            else {
                panic!("not a row: {row}");
            };
            let agent = parse(user_agent);
            let shown = |word: Option<&str>| word.unwrap_or("-").to_owned();
            assert_eq!(shown(agent.family.as_deref()), family, "{user_agent}");
            assert_eq!(shown(agent.version.as_deref()), version, "{user_agent}");
            assert_eq!(shown(agent.os.as_deref()), os, "{user_agent}");
            assert_eq!(shown(agent.device), device, "{user_agent}");
            assert!(Arc::ptr_eq(&agent, &parse(user_agent)), "not remembered");
            rows += 1;
        }
        assert!(rows >= 20);
    }

    #[test]
    fn invalid_user_agent_gives_no_browser() {
        // No agent string makes the parser fail.
        for user_agent in ["", "-", "x", "\u{0}", "Mozilla/5.0", &"(".repeat(5_000)] {
            let agent = parse(user_agent);
            assert_eq!(agent.family, None, "{user_agent}");
        }
    }
}

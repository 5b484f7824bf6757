//! Questions about page views: what `page_domain` contains, and how they may name their user.

use serde_json::{Value, json};

use super::finding::FoundSetting;
use super::session::{ProbeAnswer, ProbeSession, ProbeStop};
use super::users::ProbeUsers;
use crate::clock;
use crate::config::account::{PageDomain, PageViewUser};

/// The host of the pages. `.example` is reserved, so no site has it.
const HOST: &str = "usercom-sink-probe.example";

pub(super) async fn ask(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
) -> Result<(), ProbeStop> {
    let user = people.first();
    let shown = session.get(user.path()).await?;
    let key = shown.body["user_key"].as_str().or_else(|| shown.body["key"].as_str());
    let key = key.map(str::to_owned).or_else(|| people.key.clone());
    let mut pages = PageCounter { path: user.path(), number: 0, domain: PageDomain::Host };
    let named_by_key = match &key {
        Some(key) => by_key(session, &mut pages, key).await?,
        None => false,
    };
    let forms = [
        (PageViewUser::CustomId, "custom_id", Some(json!(user.id))),
        (PageViewUser::UserCustomId, "user_custom_id", Some(json!(user.id))),
        (PageViewUser::ClientUser, "client_user", Some(json!(user.id))),
        (PageViewUser::UserId, "user_id", user.number.map(Value::from)),
    ];
    let mut works = PageViewUser::UserKey;
    for (form, field, value) in forms {
        let Some(value) = value else { continue };
        if pages.is_counted(session, field, value).await?.is_some() {
            works = form;
            break;
        }
    }
    const QUESTION: &str = "user of a page view";
    let sent = "POST site-views/ by custom_id, user_custom_id, client_user, user_id".to_owned();
    if works == PageViewUser::UserKey && !named_by_key {
        let why = "no page view is counted, whatever names its user";
        session.cannot_work(QUESTION, sent, "none is counted", why);
        return Ok(());
    }
    let setting = FoundSetting::new("page_view_user", works);
    let (answered, effect) = match works {
        PageViewUser::UserKey => ("only the key works", "one look-up a user for the key"),
        PageViewUser::UserId => {
            ("user_id works", "no look-up of the key where the number is known")
        }
        PageViewUser::CustomId => ("custom_id works", NO_LOOK_UP),
        PageViewUser::UserCustomId => ("user_custom_id works", NO_LOOK_UP),
        PageViewUser::ClientUser => ("client_user with your id works", NO_LOOK_UP),
    };
    session.found_by(QUESTION, sent, answered, Some(setting), effect);
    Ok(())
}

const NO_LOOK_UP: &str = "no look-up of the key: one request a user saved";

/// Sends page views and looks at the count.
struct PageCounter {
    /// The path that shows the user.
    path: String,
    number: u32,
    domain: PageDomain,
}

impl PageCounter {
    /// Sends a page view. Returns the answer.
    async fn view(
        &mut self,
        session: &mut ProbeSession<'_>,
        field: &str,
        user: Value,
    ) -> Result<ProbeAnswer, ProbeStop> {
        self.number += 1;
        let path = format!("/{}", self.number);
        let domain = match self.domain {
            PageDomain::Host => HOST.to_owned(),
            PageDomain::Url => format!("https://{HOST}{path}"),
        };
        let at = clock::now().to_string();
        let mut body = json!({ "page_domain": domain, "page_path": path, "timestamp": at });
        body[field] = user;
        session.post("site-views/", body).await
    }

    /// Sends a page view; `Some` if it counts for the user.
    async fn is_counted(
        &mut self,
        session: &mut ProbeSession<'_>,
        field: &str,
        user: Value,
    ) -> Result<Option<ProbeAnswer>, ProbeStop> {
        let before = session.get(self.path.clone()).await?;
        let before = before.body["page_views"].as_u64();
        let answer = self.view(session, field, user).await?;
        if !answer.is_success() {
            return Ok(None);
        }
        let grown =
            session.look(&self.path, |shown| shown.body["page_views"].as_u64() > before).await?;
        Ok(grown.then_some(answer))
    }
}

/// A page view by key, which every account takes, with the host or else the URL.
async fn by_key(
    session: &mut ProbeSession<'_>,
    pages: &mut PageCounter,
    key: &str,
) -> Result<bool, ProbeStop> {
    const QUESTION: &str = "page_domain of a page view";
    let mut found = false;
    for domain in [PageDomain::Host, PageDomain::Url] {
        pages.domain = domain;
        found = pages.is_counted(session, "client_user", json!(key)).await?.is_some();
        if found {
            break;
        }
    }
    if !found {
        pages.domain = PageDomain::Host;
    }
    let (answered, effect) = match (found, pages.domain) {
        (true, PageDomain::Host) => ("the host works", "the host is sent"),
        (true, PageDomain::Url) => ("the URL works, the host does not", "the URL is sent"),
        (false, _) => ("neither host nor URL is counted by key", "the host is sent"),
    };
    let setting = FoundSetting::new("page_domain", pages.domain);
    let sent = "POST site-views/ with a host, then a URL".to_owned();
    session.found_by(QUESTION, sent, answered, Some(setting), effect);
    Ok(found)
}

//! Questions about companies and their members.

use serde_json::{Value, json};

use super::finding::FoundSetting;
use super::session::{ProbeSession, ProbeStop};
use super::users::{ProbeUser, ProbeUsers};
use crate::config::account::{CompanyInUpsert, MemberCompany, MemberUser};
use crate::usercom::endpoint::companies::found_in;
use crate::usercom::endpoint::number;

/// A company that was made.
struct ProbeCompany {
    id: String,
    number: Option<u64>,
}

impl ProbeCompany {
    fn path(&self) -> String {
        match self.number {
            Some(number) => format!("companies/{number}/"),
            None => format!("companies-by-id/{}/", self.id),
        }
    }
}

pub(super) async fn ask(
    session: &mut ProbeSession<'_>,
    people: &ProbeUsers,
) -> Result<(), ProbeStop> {
    let Some(company) = create(session, "company-1").await? else {
        return Ok(());
    };
    if session.until_seen(&company.path()).await?.is_none() {
        let sent = session.shown_request();
        let why = "a company that it took is not shown within a minute";
        session.cannot_work("a new company", sent, "404 for a minute", why);
        return Ok(());
    }
    let [first, second, third, fourth] = &people.users;
    if add(session, &company, first).await? {
        again(session, &company, first).await?;
    }
    in_upsert(session, &company, second).await?;
    member_user(session, &company, third).await?;
    member_company(session, &company, fourth).await
}

async fn create(
    session: &mut ProbeSession<'_>,
    name: &str,
) -> Result<Option<ProbeCompany>, ProbeStop> {
    let id = session.id(name);
    let made = session.post("companies/", json!({ "custom_id": id, "name": id })).await?;
    if !made.is_success() {
        let sent = session.shown_request();
        session.cannot_work("a new company", sent, made.told(), "it refuses to create a company");
        return Ok(None);
    }
    session.note_company(&id, made.number());
    Ok(Some(ProbeCompany { id, number: made.number() }))
}

/// Whether a user is a member of a company, as the company or the user shows it.
async fn is_member(
    session: &mut ProbeSession<'_>,
    company: &ProbeCompany,
    user: &ProbeUser,
) -> Result<bool, ProbeStop> {
    let (Some(member), Some(group)) = (user.number, company.number) else {
        return Ok(false);
    };
    let in_company = session
        .look(&company.path(), |shown| {
            found_in(&shown.body).members.is_some_and(|members| members.contains(&member))
        })
        .await?;
    if in_company {
        return Ok(true);
    }
    let is_group = |entry: &Value| number(entry).or_else(|| number(&entry["id"])) == Some(group);
    session
        .look(&user.path(), |shown| {
            shown.body["companies"].as_array().is_some_and(|all| all.iter().any(is_group))
        })
        .await
}

/// The way that is known to work.
async fn add(
    session: &mut ProbeSession<'_>,
    company: &ProbeCompany,
    user: &ProbeUser,
) -> Result<bool, ProbeStop> {
    const QUESTION: &str = "add_member by numbers";
    let path = format!("{}add_member/", company.path());
    let answer = session.post(path, json!({ "user_id": user.number })).await?;
    let sent = "POST companies/NUMBER/add_member/ {\"user_id\":NUMBER}".to_owned();
    if answer.is_success() && is_member(session, company, user).await? {
        let answered = format!("{}, a member", answer.status);
        session.found_by(QUESTION, sent, answered, None, "works");
        return Ok(true);
    }
    let answered = format!("{}, no member", answer.told());
    session.cannot_work(QUESTION, sent, answered, "no user becomes a member of a company");
    Ok(false)
}

async fn again(
    session: &mut ProbeSession<'_>,
    company: &ProbeCompany,
    user: &ProbeUser,
) -> Result<(), ProbeStop> {
    let path = format!("{}add_member/", company.path());
    let answer = session.post(path, json!({ "user_id": user.number })).await?;
    session.found_by(
        "add_member for a member",
        "POST companies/NUMBER/add_member/ a second time".to_owned(),
        if answer.is_success() { "taken".to_owned() } else { answer.told() },
        None,
        "either is fine: after a refusal the list of members is read",
    );
    Ok(())
}

/// What `company_custom_id` in an upsert does: with a company that was there before, with one that
/// was created just now, and with one that does not exist.
async fn in_upsert(
    session: &mut ProbeSession<'_>,
    old: &ProbeCompany,
    user: &ProbeUser,
) -> Result<(), ProbeStop> {
    const QUESTION: &str = "company_custom_id in an upsert";
    let upsert = |company: &str| json!({ "custom_id": user.id, "company_custom_id": company });
    let mut value = CompanyInUpsert::Ignored;
    let answer = session.upsert(upsert(&old.id)).await?;
    let sent = session.shown_request();
    let mut answered = "no member".to_owned();
    if !answer.is_success() {
        answered = answer.told();
    } else if is_member(session, old, user).await?
        && let Some(new) = create(session, "company-2").await?
    {
        session.upsert(upsert(&new.id)).await?;
        if !is_member(session, &new, user).await? {
            answered = "a member, but not of a company that is a moment old".to_owned();
        } else if is_member(session, old, user).await? {
            (value, answered) = with_missing_company(session, user).await?;
        } else {
            (value, answered) = (CompanyInUpsert::Moves, "a member, and of no other".to_owned());
        }
    }
    let effect = match value {
        CompanyInUpsert::Joins | CompanyInUpsert::Creates => {
            "a membership goes with an upsert: no add_member"
        }
        CompanyInUpsert::Ignored | CompanyInUpsert::Moves => "memberships are sent as add_member",
    };
    let setting = FoundSetting::new("company_in_upsert", value);
    session.found_by(QUESTION, sent, answered, Some(setting), effect);
    Ok(())
}

async fn with_missing_company(
    session: &mut ProbeSession<'_>,
    user: &ProbeUser,
) -> Result<(CompanyInUpsert, String), ProbeStop> {
    let id = session.id("company-3");
    session.upsert(json!({ "custom_id": user.id, "company_custom_id": id })).await?;
    let path = format!("companies-by-id/{id}/");
    if session.look(&path, |answer| answer.is_success()).await? {
        session.note_company(&id, None);
        return Ok((CompanyInUpsert::Creates, "a member, also of a missing company".to_owned()));
    }
    Ok((CompanyInUpsert::Joins, "a member of a company that exists".to_owned()))
}

/// Whether `add_member` takes the user's own id.
async fn member_user(
    session: &mut ProbeSession<'_>,
    company: &ProbeCompany,
    user: &ProbeUser,
) -> Result<(), ProbeStop> {
    let path = format!("{}add_member/", company.path());
    let answer = session.post(path, json!({ "user_custom_id": user.id })).await?;
    let works = answer.is_success() && is_member(session, company, user).await?;
    let (value, effect) = match works {
        true => (MemberUser::UserCustomId, "no look-up of the user's number"),
        false => (MemberUser::UserId, "the user's number is looked up where it is not known"),
    };
    session.found_by(
        "add_member by the user's id",
        "POST companies/NUMBER/add_member/ {\"user_custom_id\":\"…-user-3\"}".to_owned(),
        member_told(works, &answer.told()),
        Some(FoundSetting::new("member_user", value)),
        effect,
    );
    Ok(())
}

/// Whether the path of `add_member` takes the company's own id.
async fn member_company(
    session: &mut ProbeSession<'_>,
    company: &ProbeCompany,
    user: &ProbeUser,
) -> Result<(), ProbeStop> {
    let path = format!("companies-by-id/{}/add_member/", company.id);
    let answer = session.post(path, json!({ "user_id": user.number })).await?;
    let works = answer.is_success() && is_member(session, company, user).await?;
    let (value, effect) = match works {
        true => (MemberCompany::CustomId, "no look-up of the company's number"),
        false => (MemberCompany::Id, "the company's number is looked up where it is not known"),
    };
    session.found_by(
        "add_member by the company's id",
        "POST companies-by-id/…-company-1/add_member/ {\"user_id\":NUMBER}".to_owned(),
        member_told(works, &answer.told()),
        Some(FoundSetting::new("member_company", value)),
        effect,
    );
    Ok(())
}

fn member_told(works: bool, told: &str) -> String {
    let member = if works { "a member" } else { "no member" };
    format!("{told}, {member}")
}

//! Identity in the built program: a load, an account from a file, and kills amid faults.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use usercom_sink::emulator::Faults;

use crate::support::chaos::{Chaos, Fault};
use crate::support::{EmulatorAccount, KEY, TestDir, binary, json_of, mix};

/// The people of the load that the account has by e-mail only.
const BY_EMAIL: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_into_an_account_of_people_by_email_makes_no_duplicate() {
    // 1,000 records of people of whom 60 are in the account by e-mail only: each of them gets the
    // id and everything, no person has two records, and each person costs one look-up at most.
    let records = mix::beside_the_project().unwrap_or_else(|| {
        let mut records = mix::records(1_000, "match");
        records.sort_by_key(|record| record["type"] != "identify");
        records
    });
    let account = EmulatorAccount::open(Faults::default()).await;
    let mut by_email = BTreeSet::new();
    for record in &records {
        if let (Some(email), true) = (record["traits"]["email"].as_str(), by_email.len() < BY_EMAIL)
            && record["type"] == "identify"
            && by_email.insert(email.to_owned())
        {
            account.post("users/", &json!({"email": email.to_uppercase()})).await;
        }
    }
    assert_eq!(by_email.len(), BY_EMAIL);
    let dir = TestDir::new();
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    dir.write("records.ndjson", &lines.join("\n"));
    let sink = "preset = \"segment\"\n[sinks.crm.users]\nmatch_by = [\"email\"]\n";
    let summary = json_of(&dir.run_once(&dir.pipeline(&account.endpoint(), sink), &[]), 0);
    assert_eq!(summary["sinks"]["crm"]["dead_letters"], json!({}), "{summary}");
    let users = account.all("users/").await;
    let people: BTreeSet<&str> =
        records.iter().filter_map(|r| r["userId"].as_str().or(r["anonymousId"].as_str())).collect();
    let ids: BTreeSet<&str> =
        users.iter().map(|user| user["custom_id"].as_str().expect("everybody has an id")).collect();
    assert_eq!((ids.len(), users.len()), (people.len(), people.len()));
    assert_eq!(ids, people);
    let seen = |user: &Value| user["email"].as_str().unwrap_or_default().to_lowercase();
    let emails: Vec<String> = users.iter().map(seen).filter(|email| !email.is_empty()).collect();
    let different: BTreeSet<&String> = emails.iter().collect();
    assert_eq!(different.len(), emails.len(), "a person has two records");
    let requests = account.admin("requests").await;
    let searched: Vec<&str> = requests
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|r| r["path"].as_str().filter(|path| path.contains("users/search/")))
        .collect();
    let once: BTreeSet<&&str> = searched.iter().collect();
    assert_eq!(once.len(), searched.len(), "a person was looked up twice");
    println!("{} people, {} look-ups, {} adopted", people.len(), searched.len(), BY_EMAIL);
    account.close().await;
}

/// The program `emulator` with an account from a file; it ends when dropped.
struct EmulatorProcess {
    child: Child,
    endpoint: String,
}

impl EmulatorProcess {
    fn start(seed: &std::path::Path) -> Self {
        let mut child = binary()
            .args(["emulator", "--listen", "127.0.0.1:0", "--api-key", KEY, "--seed"])
            .arg(seed)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{line}");
        Self { child, endpoint }
    }

    async fn users(&self) -> Vec<Value> {
        let request = reqwest::Client::new()
            .get(format!("{}users/", self.endpoint))
            .header("Authorization", format!("Token {KEY}"))
            .header("Accept", "*/*; version=2");
        let page: Value = request.send().await.unwrap().json().await.unwrap();
        page["results"].as_array().unwrap().clone()
    }
}

impl Drop for EmulatorProcess {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_of_a_seed_file_get_the_ids_of_their_calls() {
    // People of each kind in the file of `emulator --seed`: by e-mail, telephone or browser they
    // are adopted, one with an own id keeps it, and no one is there twice.
    let dir = TestDir::new();
    let seed = json!({"users": [
        {"email": "Ann@Shop.Example", "first_name": "Ann"},
        {"phone_number": "+48 600 100 200"},
        {"user_key": "cookieOfBob1"},
        {"custom_id": "u9", "email": "cy@shop.example"},
    ]});
    let account = EmulatorProcess::start(&dir.write("account.json", &seed.to_string()));
    let records = [
        json!({"type": "identify", "userId": "u1", "traits": {"email": " ann@shop.example"}}),
        json!({"type": "track", "userId": "u1", "event": "e"}),
        json!({"type": "identify", "userId": "u2", "traits": {"phone": "+48-600-100-200"}}),
        json!({"type": "track", "userId": "u3", "event": "e", "context": {
            "externalIds": [{"id": "cookieOfBob1", "type": "user_key"}]}}),
        json!({"type": "identify", "userId": "u4", "traits": {"email": "cy@shop.example"}}),
        json!({"type": "identify", "userId": "u5", "traits": {"email": "new@shop.example"}}),
    ];
    dir.write("records.ndjson", &mix::lines(&records));
    let sink = "preset = \"segment\"\n\
                users = { match_by = [\"user_key\", \"email\", \"phone\"] }\n";
    let output = dir.run_once(&dir.pipeline(&account.endpoint, sink), &[]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(json_of(&output, 0)["sinks"]["crm"]["dead_letters"], json!({}));
    let users = account.users().await;
    let shown = |n: u64| {
        let user = users.iter().find(|user| user["id"] == n).unwrap();
        (user["custom_id"].as_str().unwrap().to_owned(), user.clone())
    };
    let ids: Vec<String> = (1..=6).map(|n| shown(n).0).collect();
    assert_eq!(ids[..4], ["u1", "u2", "u3", "u9"]);
    assert_eq!(ids[4..].iter().collect::<BTreeSet<_>>().len(), 2, "{ids:?}");
    assert_eq!(users.len(), 6);
    assert_eq!(shown(1).1["first_name"], "Ann");
    assert_eq!(shown(3).1["user_key"], "cookieOfBob1");
    assert!(log.contains("the record found by e-mail address has another id"), "{log}");
}

/// People of the test of kills; every fourth of each kind is named by two own ids.
const PEOPLE: usize = 24;

/// What the account knows of a person before, and the traits and context of the calls.
fn person(n: usize) -> (Option<Value>, Value, Value) {
    let email = format!("p{n}@shop.example");
    let phone = format!("+4860010{n:04}");
    let cookie = format!("cookie{n:06}");
    let context = json!({"externalIds": [{"id": cookie, "type": "user_key"}]});
    match n % 5 {
        0 => (None, json!({"email": email}), json!({})),
        1 => (Some(json!({"user_key": cookie})), json!({"plan": "free"}), context),
        2 => (Some(json!({"email": email.to_uppercase()})), json!({"email": email}), json!({})),
        3 => (
            Some(json!({"email": email, "phone_number": phone})),
            json!({"phone": phone}),
            json!({}),
        ),
        _ => {
            let known = json!({"email": email, "custom_id": format!("old{n}")});
            (Some(known), json!({"email": email}), context)
        }
    }
}

/// Calls of all own ids, in an order of their own for each id: the first call names the person.
fn calls(dice: &mut StdRng) -> (Vec<Value>, BTreeMap<String, usize>) {
    let mut queues: Vec<Vec<Value>> = Vec::new();
    let mut owners = BTreeMap::new();
    for n in 0..PEOPLE {
        let ids = if n % 4 == 3 { 2 } else { 1 };
        for twin in 0..ids {
            let id = format!("u{n}_{twin}");
            owners.insert(id.clone(), n);
            let (_, traits, context) = person(n);
            let is_identify = context == json!({}) || dice.random_bool(0.5);
            let mut queue = vec![match is_identify {
                true => json!({"type": "identify", "traits": traits}),
                false => json!({"type": "track", "event": format!("{id} 0")}),
            }];
            queue[0]["context"] = context;
            queue.extend((1..6).map(|k| match k % 3 {
                0 => json!({"type": "identify", "traits": {"seats": k}}),
                _ => json!({"type": "track", "event": format!("{id} {k}")}),
            }));
            for (k, call) in queue.iter_mut().enumerate() {
                call["userId"] = json!(id);
                call["messageId"] = json!(format!("{id} {k}"));
                call["timestamp"] = json!(format!("2024-05-21T10:{n:02}:{k:02}Z"));
            }
            queues.push(queue.into_iter().rev().collect());
        }
    }
    let mut calls = Vec::new();
    while !queues.is_empty() {
        let at = dice.random_range(0..queues.len());
        match queues[at].pop() {
            Some(call) => calls.push(call),
            None => drop(queues.swap_remove(at)),
        }
    }
    (calls, owners)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_faults_at_any_time_leave_one_record_for_each_person() {
    // The built program with a disk buffer and with a memory buffer, killed again and again amid
    // faults: no second record of a person whom a key names, never one record for two ids, no own
    // id or browser key overwritten, and every event on the record of its id.
    for (round, buffer) in ["disk", "memory", "disk", "memory"].into_iter().enumerate() {
        let seed = 4100 + round as u64;
        let mut dice = StdRng::seed_from_u64(seed);
        let account = EmulatorAccount::open(Faults::default()).await;
        let mut numbers = BTreeMap::new();
        for n in 0..PEOPLE {
            if let Some(known) = person(n).0 {
                let user = account.post("users/", &known).await;
                numbers.insert(n, (user["id"].as_u64().unwrap(), user));
            }
        }
        let (calls, owners) = calls(&mut dice);
        let dir = TestDir::new();
        dir.write("records.ndjson", &mix::lines(&calls));
        let chaos = Chaos::start(account.addr(), seed).await;
        chaos.set_fault_rates(&[
            (Fault::CutBefore, 0.03),
            (Fault::CutAfter, 0.05),
            (Fault::Garbage, 0.02),
            (Fault::Html, 0.02),
            (Fault::Portal, 0.02),
            (Fault::Status(503), 0.03),
            (Fault::Delay(20), 0.2),
        ]);
        let sink = format!(
            "preset = \"segment\"\n\
             buffer = {{ type = \"{buffer}\" }}\n\
             request = {{ timeout_secs = 2, retry_initial_backoff_secs = 1, \
             retry_max_duration_secs = 1 }}\n\
             users = {{ match_by = [\"user_key\", \"email\", \"phone\"] }}\n"
        );
        let config = dir.pipeline(&chaos.endpoint(), &sink);
        for _ in 0..6 {
            let mut child = binary()
                .args(["run", "-c", config.to_str().unwrap()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::sleep(Duration::from_millis(dice.random_range(250..1500))).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let summary = json_of(&dir.run_once(&config, &[]), 0);
        assert_eq!(summary["sinks"]["crm"]["dead_letters"], json!({}), "{summary}");
        let users = account.all("users/").await;
        let mut by_id: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for user in &users {
            let id = user["custom_id"].as_str().unwrap_or_default();
            by_id.entry(id).or_default().push(user);
        }
        let of_person = |n: usize| owners.iter().filter(move |(_, owner)| **owner == n);
        for (n, (number, before)) in &numbers {
            let now = users.iter().find(|user| user["id"] == *number).unwrap();
            let id = now["custom_id"].as_str().unwrap_or_default();
            let expected = match before["custom_id"].as_str() {
                Some(old) => id == old,
                None => of_person(*n).any(|(own, _)| own == id),
            };
            assert!(expected, "seed {seed}: person {n} has {id:?}");
            assert_eq!(now["user_key"], before["user_key"], "seed {seed}: person {n}");
        }
        for id in owners.keys() {
            assert_eq!(by_id.get(id.as_str()).map(Vec::len), Some(1), "seed {seed}: {id}");
            let events = account.all(&format!("users-by-id/{id}/events/")).await;
            let names: BTreeSet<&str> = events.iter().filter_map(|e| e["name"].as_str()).collect();
            let tracked = calls.iter().filter(|call| call["userId"] == **id);
            let sent: BTreeSet<&str> = tracked.filter_map(|call| call["event"].as_str()).collect();
            assert_eq!(names, sent, "seed {seed}: {id}");
        }
        let with_old_id = numbers.values().filter(|(_, user)| !user["custom_id"].is_null()).count();
        assert_eq!(users.len(), with_old_id + owners.len(), "seed {seed}: {:?}", by_id.keys());
        account.close().await;
    }
}

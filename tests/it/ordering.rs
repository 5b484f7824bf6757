//! Order and economy of the planner, against a model that does one thing at a time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use usercom_sink::schedule::{
    Coalescing, Field, FieldClass, KeyedScheduler, Op, OpOutcome, OpResult, PackedFields,
    ScheduledOp,
};

/// What a user did, in the small world of this test.
#[derive(Debug, Clone)]
enum Step {
    Identify { user: u8, field: u8, poison: bool },
    Track { user: u8, poison: bool },
    Group { user: u8, company: u8, poison: bool },
    Login { anonymous: u8, user: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let poison = || prop::bool::weighted(0.1);
    let step = prop_oneof![
        3 => (0..4u8, 0..3u8, poison())
            .prop_map(|(user, field, poison)| Step::Identify { user, field, poison }),
        3 => (0..4u8, poison()).prop_map(|(user, poison)| Step::Track { user, poison }),
        2 => (0..4u8, 0..2u8, poison())
            .prop_map(|(user, company, poison)| Step::Group { user, company, poison }),
        1 => (2..4u8, 0..2u8).prop_map(|(anonymous, user)| Step::Login { anonymous, user }),
    ];
    prop::collection::vec(step, 1..60)
}

/// User.com in this world: profiles, events in order of arrival, companies, members.
#[derive(Debug, Default, PartialEq)]
struct World {
    users: BTreeMap<String, BTreeMap<String, String>>,
    events: Vec<(String, String)>,
    companies: BTreeMap<String, BTreeMap<String, String>>,
    members: BTreeSet<(String, String)>,
}

const POISON: &str = "poison";

impl World {
    fn carry_out(&mut self, op: &Op) -> OpOutcome {
        let write = |into: &mut BTreeMap<String, String>, fields: &PackedFields| {
            for field in fields.iter() {
                into.insert(field.name.to_string(), field.json.to_string());
            }
        };
        match op {
            Op::Identify { fields, .. }
            | Op::Company { fields, .. }
            | Op::Track { data: fields, .. }
                if fields.get(POISON).is_some() =>
            {
                return OpOutcome::Rejected;
            }
            Op::Identify { user, fields } => {
                write(self.users.entry(user.as_str().into()).or_default(), fields);
            }
            Op::Track { user, name, .. } => {
                self.events.push((user.as_str().into(), name.to_string()));
            }
            Op::Company { company, fields } => {
                write(self.companies.entry(company.as_str().into()).or_default(), fields);
            }
            Op::Join { user, company } => {
                assert!(
                    self.companies.contains_key(company.as_str()),
                    "a membership goes after its company"
                );
                self.members.insert((user.as_str().into(), company.as_str().into()));
            }
            Op::Page { .. } | Op::Merge { .. } => unreachable!("not in this world"),
        }
        OpOutcome::Completed
    }

    fn events_of(&self, user: &str) -> Vec<&str> {
        self.events.iter().filter(|(u, _)| u == user).map(|(_, name)| &**name).collect()
    }
}

fn fields(name: &str, n: usize, poison: bool) -> PackedFields {
    let json = n.to_string();
    let names = std::iter::once(name).chain(poison.then_some(POISON));
    names.map(|name| Field { name, class: FieldClass::Custom, json: &json }).collect()
}

fn ops_of(n: usize, step: &Step) -> Vec<Op> {
    let id = |user: &u8| format!("u{user}").as_str().into();
    let company = |c: &u8| format!("c{c}").as_str().into();
    match step {
        Step::Identify { user, field, poison } => {
            let name = ["a", "b", "c"][usize::from(*field)];
            vec![Op::Identify { user: id(user), fields: fields(name, n, *poison) }]
        }
        Step::Track { user, poison } => vec![Op::Track {
            user: id(user),
            name: n.to_string().into(),
            at: None,
            data: fields("n", n, *poison),
        }],
        Step::Group { user, company: c, poison } => vec![
            Op::Company { company: company(c), fields: fields("n", n, *poison) },
            Op::Join { user: id(user), company: company(c) },
        ],
        Step::Login { .. } => vec![],
    }
}

/// The naive model: one op after the other; a group whose company is refused joins nobody.
fn one_at_a_time(steps: &[Step]) -> (World, BTreeSet<usize>) {
    let (mut world, mut refused) = (World::default(), BTreeSet::new());
    for (n, step) in steps.iter().enumerate() {
        for op in ops_of(n, step) {
            if world.carry_out(&op) == OpOutcome::Rejected {
                refused.insert(n);
                break;
            }
        }
    }
    (world, refused)
}

/// The planner at work in a world of its own.
struct Run {
    scheduler: KeyedScheduler<usize>,
    world: World,
    out: Vec<ScheduledOp<usize>>,
    refused: BTreeSet<usize>,
    pushed: usize,
    settled: usize,
}

impl Run {
    fn new(folding: Coalescing) -> Self {
        Self {
            scheduler: KeyedScheduler::new(folding, 100),
            world: World::default(),
            out: Vec::new(),
            refused: BTreeSet::new(),
            pushed: 0,
            settled: 0,
        }
    }

    fn arrive(&mut self, n: usize, step: &Step) {
        if let Step::Login { anonymous, user } = step {
            let id = |u: &u8| format!("u{u}").as_str().into();
            self.scheduler.link_identities(&id(anonymous), &id(user));
        }
        let mut after = None;
        for op in ops_of(n, step) {
            self.pushed += 1;
            after = Some(self.scheduler.push(op, after, n));
        }
    }

    fn complete(&mut self, which: usize) {
        let task = self.out.remove(which);
        let fate = self.world.carry_out(task.op());
        for settled in self.scheduler.finish(task, fate) {
            self.settled += 1;
            if let OpResult::Rejected(n) = settled {
                self.refused.insert(n);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_interleaving_ends_like_one_at_a_time(
        steps in steps(),
        choices in prop::collection::vec(0..4u8, 400),
        fold in any::<bool>(),
    ) {
        // However arrivals, completions, refusals and put-backs interleave: every op is settled
        // exactly once, profiles, companies and members end as if done one at a time, each user's
        // events keep their order, and those refused are exactly those at fault.
        let mut run = Run::new(if fold { Coalescing::On } else { Coalescing::Off });
        let mut arrivals = steps.iter().enumerate();
        for choice in choices {
            match choice {
                0 => if let Some((n, step)) = arrivals.next() { run.arrive(n, step) },
                1 => run.out.extend(run.scheduler.pop_ready()),
                2 if !run.out.is_empty() => run.complete(run.out.len() / 2),
                3 if !run.out.is_empty() => {
                    let task = run.out.remove(0);
                    run.scheduler.requeue(task);
                }
                _ => {}
            }
        }
        arrivals.for_each(|(n, step)| run.arrive(n, step));
        loop {
            run.out.extend(run.scheduler.pop_ready());
            if run.out.is_empty() { break }
            run.complete(0);
        }
        prop_assert!(run.scheduler.is_empty(), "stuck with {} ops", run.scheduler.len());
        prop_assert_eq!(run.settled, run.pushed);
        let (model, at_fault) = one_at_a_time(&steps);
        prop_assert_eq!(&run.world.users, &model.users);
        prop_assert_eq!(&run.world.companies, &model.companies);
        prop_assert_eq!(&run.world.members, &model.members);
        for user in ["u0", "u1", "u2", "u3"] {
            prop_assert_eq!(run.world.events_of(user), model.events_of(user));
        }
        prop_assert_eq!(run.refused, at_fault);
    }

    #[test]
    fn order_holds_over_a_login(
        before in 0..4usize,
        after in 1..4usize,
        picks in prop::collection::vec(0..3u8, 60),
    ) {
        // What was done anonymously before a login goes before what the user does after it.
        let mut run = Run::new(Coalescing::On);
        let track = |user: &str, n: usize| Op::Track {
            user: user.into(),
            name: n.to_string().into(),
            at: None,
            data: PackedFields::default(),
        };
        for n in 0..before {
            run.scheduler.push(track("anon", n), None, n);
        }
        run.out.extend(run.scheduler.pop_ready());
        run.scheduler.link_identities(&"anon".into(), &"user".into());
        for n in before..before + after {
            run.scheduler.push(track(if n % 2 == 0 { "user" } else { "anon" }, n), None, n);
        }
        for pick in picks.into_iter().chain(std::iter::repeat_n(2, 40)) {
            match pick {
                0 => run.out.extend(run.scheduler.pop_ready()),
                1 if !run.out.is_empty() => {
                    let task = run.out.remove(0);
                    run.scheduler.requeue(task);
                }
                _ if run.out.is_empty() => run.out.extend(run.scheduler.pop_ready()),
                _ => run.complete(0),
            }
            prop_assert!(run.out.len() <= 1);
        }
        prop_assert!(run.scheduler.is_empty());
        let order: Vec<usize> = run.world.events.iter().map(|(_, n)| n.parse().unwrap()).collect();
        prop_assert_eq!(order, (0..before + after).collect::<Vec<_>>());
    }
}

#[test]
fn a_constant_anonymous_id_does_not_chain_users() {
    // An anonymous id shared by many users (a server's constant one) leaves them their own scheduler.
    let mut scheduler: KeyedScheduler<usize> = KeyedScheduler::new(Coalescing::On, 100);
    for n in 0..50 {
        let user = format!("u{n}").as_str().into();
        scheduler.link_identities(&"server".into(), &user);
        let data = PackedFields::default();
        scheduler.push(Op::Track { user, name: "e".into(), at: None, data }, None, n);
    }
    let out: Vec<_> = std::iter::from_fn(|| scheduler.pop_ready()).collect();
    assert_eq!(out.len(), 50);
}

#[test]
fn waiting_identifies_fold_until_the_next_event() {
    // Identifies of one user fold while they wait, but never over that user's next track.
    let mut scheduler: KeyedScheduler<usize> = KeyedScheduler::new(Coalescing::On, 100);
    let step = |kind: char| match kind {
        'i' => Step::Identify { user: 0, field: 0, poison: false },
        _ => Step::Track { user: 0, poison: false },
    };
    for (n, kind) in "tiitit".chars().enumerate() {
        for op in ops_of(n, &step(kind)) {
            scheduler.push(op, None, n);
        }
    }
    let mut sizes = Vec::new();
    while let Some(task) = scheduler.pop_ready() {
        sizes.push(task.parts());
        scheduler.finish(task, OpOutcome::Completed);
    }
    assert_eq!(sizes, [1, 2, 1, 1, 1]);
    assert_eq!(scheduler.coalesced(), 1);
}

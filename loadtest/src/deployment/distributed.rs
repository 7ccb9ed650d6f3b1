//! Schedulers, workers and API servers on real servers.

use super::{
    Deployment, Duty, Kind, Layout, Links, Member, PASSWORD, Servers, listening::listening_at,
    member::connected, ready,
};
use crate::{
    error::{LoadError, Result},
    measure::{Groups, Messages, statements::Statements},
};
use gristmill_testkit::{Clock, DataDir, free_port, roles};
use std::{fs, os::unix::fs::PermissionsExt};

/// Any 32 bytes: nothing outlives the measurement.
const SECRET_KEY: &str = "6c6f6164746573746c6f6164746573746c6f6164746573746c6f616474657374";

/// Starts the servers and the roles, and waits until all serve.
pub async fn start(layout: &Layout) -> Result<Deployment> {
    if layout.schedulers == 0 || layout.workers == 0 || layout.apis == 0 {
        return Err(LoadError::EmptyLayout);
    }
    let folder = DataDir::new("load")?;
    if layout.movable_clocks {
        // PostgreSQL runs under an account of its own, and reads its clock in here.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .map_err(LoadError::Folder)?;
    }
    let servers = Servers::start(layout, folder.path()).await?;
    let bases = (0..layout.apis)
        .map(|_| Ok(format!("http://127.0.0.1:{}", free_port()?)))
        .collect::<Result<Vec<_>>>()?;
    let first_base = bases.first().map(String::as_str).unwrap_or_default();
    let mut setup = roles::Setup::new(roles::binary("gristmill")?, folder.path())
        .env(
            "GRISTMILL_STORE",
            format!("file://{}", folder.path().join("store").display()),
        )
        .env("GRISTMILL_SECRET_KEY", SECRET_KEY)
        .env("GRISTMILL_ADMIN_PASSWORD", PASSWORD)
        .env("GRISTMILL_API_URL", first_base);
    for (name, value) in &layout.environment {
        setup = setup.env(name, value);
    }
    migrate(&setup, &servers).await?;
    let statements = Statements::of_database(servers.database_url()).await;

    let mut members = Vec::new();
    let duties = [
        (Duty::Scheduler, layout.schedulers),
        (Duty::Worker, layout.workers),
        (Duty::Api, layout.apis),
    ];
    for (duty, count) in duties {
        for number in 0..count {
            let base = match duty {
                Duty::Api => bases.get(number).cloned(),
                _ => None,
            };
            let links = match layout.proxied {
                true => Some(Links::open(duty, &servers).await?),
                false => None,
            };
            let clock = match layout.movable_clocks {
                true => {
                    let file = format!("{}-{number}.clock", duty.name());
                    Some(Clock::new(folder.path().join(file))?)
                }
                false => None,
            };
            let mut setup = setup.clone();
            for (name, value) in clock.iter().flat_map(Clock::environment) {
                setup = setup.env(name, value);
            }
            let role = launch(&setup, &servers, layout, (duty, number), &base, &links)?;
            members.push(Member {
                duty,
                number,
                role,
                links,
                clock,
                base,
            });
        }
    }
    let mut client = None;
    for api in members.iter().filter(|member| member.duty == Duty::Api) {
        let base = api.base.as_deref().unwrap_or_default();
        let ready = ready(&api.role, base, layout.workers).await?;
        client.get_or_insert(ready);
    }
    let client = client.ok_or(LoadError::EmptyLayout)?;

    let mut processes = Groups::default();
    for member in &members {
        processes.add(member.duty.group(), member.role.pid());
    }
    processes.add_server("postgres", listening_at(servers.database_url()));
    processes.add_server("rabbitmq", listening_at(servers.amqp_url()));
    processes.add_server("redis", listening_at(servers.redis_url()));
    Ok(Deployment {
        kind: Kind::RealServers,
        client,
        processes,
        statements,
        messages: Messages::of_vhost(servers.admin_url(), servers.amqp_url()),
        members,
        servers: Some(servers),
        folder: Some(folder),
    })
}

async fn migrate(setup: &roles::Setup, servers: &Servers) -> Result<()> {
    let migrate = connected(setup.clone(), servers, None).start("migrate", &["migrate"])?;
    let status = migrate.wait(super::START).await?;
    match status.is_some_and(|status| status.success()) {
        true => Ok(()),
        false => Err(LoadError::Migrate(migrate.log_text())),
    }
}

/// Starts one process with a name, connections and a work folder of its own.
fn launch(
    setup: &roles::Setup,
    servers: &Servers,
    layout: &Layout,
    (duty, number): (Duty, usize),
    base: &Option<String>,
    links: &Option<Links>,
) -> Result<roles::Role> {
    let setup = connected(setup.clone(), servers, links.as_ref());
    let name = format!("{}-{number}", duty.name());
    let concurrency = layout.concurrency.to_string();
    let work_dir = setup.folder().join(format!("work-{number}"));
    let work_dir = work_dir.to_string_lossy();
    let args = match duty {
        Duty::Worker => vec![
            "worker",
            "--concurrency",
            &concurrency,
            "--name",
            &name,
            "--work-dir",
            &work_dir,
        ],
        Duty::Api => {
            let base = base.as_deref().unwrap_or_default();
            let listen = base.trim_start_matches("http://");
            vec!["api", "--listen", listen]
        }
        Duty::Scheduler | Duty::Standalone => vec![duty.name()],
    };
    Ok(setup.start(&name, &args)?)
}

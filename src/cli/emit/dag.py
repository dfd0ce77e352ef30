"""@NAME@: klieg on @EVERY@s that have ended. Runs on a worker that has klieg, its job and its configuration.

klieg ends with 0 (published), @SKIP@ (nothing to do, input missing, or another run at work: Airflow shows the task as skipped),
or another code, which is a failure; `klieg --help` lists them. The last line of stdout goes to XCom as JSON.
A range again: airflow backfill create --dag-id @NAME@ --from-date … --to-date … --reprocess-behavior completed
"""

import datetime

from airflow import DAG
from airflow.timetables.trigger import CronTriggerTimetable

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

with DAG(
    dag_id=@NAME_PY@,
    schedule=CronTriggerTimetable(@CRON_PY@, timezone="UTC"),
    start_date=datetime.datetime(2016, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": datetime.timedelta(minutes=10)},
) as dag:
    BashOperator(
        task_id="run",
        bash_command=@COMMAND_PY@,
        # Exit code for skipped.
        skip_on_exit_code=@SKIP@,
        do_xcom_push=True,
        append_env=True,
    )

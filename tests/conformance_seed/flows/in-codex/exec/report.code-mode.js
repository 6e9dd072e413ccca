const { output, exit_code, exitCode } = await tools.exec_command({
  cmd: `echo ${flow.config.greeting} from ${flow.name}/${flow.step}`,
  workdir: flow.root,
  yield_time_ms: 10000,
  max_output_tokens: 1000,
});
if ((exit_code ?? exitCode) !== 0) result({ status: "failed", message: output });
text(output);
result({
  status: flow.event.payload.status,
  message: `${flow.config.greeting} ${flow.event.id}`,
  artifacts: { files: flow.event.payload.files ?? 0 },
});

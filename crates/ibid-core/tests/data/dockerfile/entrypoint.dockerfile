FROM base AS one
ENTRYPOINT ["run"]
FROM base AS two
CMD ["own"]
ENTRYPOINT ["run"]
FROM two AS three
ENTRYPOINT ["other"]
FROM base AS four
ENTRYPOINT []
FROM four
COPY --from=one / /
COPY --from=three / /
#: base base {"Cmd":["bash"],"Entrypoint":["init"],"WorkingDir":"/srv/app/","User":"app","Labels":{"a":"b"},"ExposedPorts":{"80/tcp":{}},"Shell":["/bin/ash","-c"]}

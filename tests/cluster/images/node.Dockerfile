# What a node itself needs: the process that holds a pod's namespaces, and a shell with the usual tools.
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENTRYPOINT ["/bin/busybox", "sleep", "2147483647"]

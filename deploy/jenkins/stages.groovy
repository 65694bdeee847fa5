// Reads a declarative Jenkinsfile and prints its stages with their commands as JSON. It knows the words that a section
// may hold and refuses all others, as Jenkins would: `groovy stages.groovy Jenkinsfile`. It is no Jenkins: whether a
// plugin is installed, an agent has a tool or a credential exists, only a run there shows.
import groovy.json.JsonOutput

class Section {
    static final Map<String, List<String>> WORDS = [
        pipeline: ['agent', 'options', 'triggers', 'environment', 'stages', 'post', 'parameters', 'tools'],
        agent: ['label', 'docker', 'any', 'none'], options: ['timeout', 'disableConcurrentBuilds', 'timestamps'],
        triggers: ['cron', 'pollSCM'], environment: [], stages: ['stage'],
        stage: ['agent', 'environment', 'when', 'steps', 'post', 'matrix', 'stages', 'options'],
        when: ['triggeredBy', 'buildingTag', 'branch', 'expression'], steps: ['sh', 'withCredentials', 'archiveArtifacts'],
        withCredentials: ['sh'], matrix: ['axes', 'stages', 'agent'], axes: ['axis'], axis: ['name', 'values'],
        post: ['always', 'failure', 'success', 'cleanup'], always: ['archiveArtifacts', 'sh'], failure: ['sh'],
        success: ['sh'], cleanup: ['cleanWs'],
    ]
    static final List<String> VALUES = ['credentials', 'usernamePassword', 'string']  // functions that only give a value
    static final Map env = [BRANCH_NAME: 'main', TAG_NAME: null]

    String kind
    List<Map> stages
    Map stage

    def methodMissing(String name, args) {
        if (VALUES.contains(name)) return [:]
        if (!WORDS[kind].contains(name)) throw new IllegalStateException("`${name}` may not stand in `${kind}`")
        if (name == 'sh') stage.commands << args[0].toString()
        if (name == 'stage') {
            def found = [name: args[0], commands: [], axis: []]
            run(name, args[1], found)
            if (!found.commands && !found.stages) throw new IllegalStateException("stage `${args[0]}` does nothing")
            if (stage == null) { stages << found } else { stage.commands.addAll(found.commands) }
            return null
        }
        if (name == 'values') stage.axis = args as List
        if (args && args[-1] instanceof Closure) {
            if (!WORDS.containsKey(name)) throw new IllegalStateException("`${name}` takes no block")
            run(name, args[-1], stage)
        }
        return null
    }

    void run(String inner, Closure body, Map current) {
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.delegate = new Section(kind: inner, stages: stages, stage: current)
        body.call()
    }

    def propertyMissing(String name) {
        if (name == 'env') return env
        if (kind == 'agent' && WORDS.agent.contains(name)) return null
        throw new IllegalStateException("`${name}` may not stand in `${kind}`")
    }

    void propertyMissing(String name, value) {
        if (kind != 'environment') throw new IllegalStateException("`${name} = …` may not stand in `${kind}`")
    }
}

def stages = []
def binding = new Binding(env: Section.env)
def script = new GroovyShell(binding).parse(new File(args[0]))
script.metaClass.pipeline = { Closure body -> new Section(kind: 'root', stages: stages).run('pipeline', body, null) }
script.run()
println JsonOutput.toJson(stages)
